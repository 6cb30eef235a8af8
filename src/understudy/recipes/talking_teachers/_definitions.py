"""What the labels of built-in and published text tasks mean, as a teacher is told."""

from collections.abc import Sequence

STDLIB = {
    "asyncio": "coroutines, event loops, tasks, futures, transports and protocols",
    "email": "mail messages, their headers, addresses, encodings and MIME parts",
    "http": "HTTP requests and responses, cookies, web servers and clients",
    "importlib": "importing modules: finders, loaders, specs, package resources and metadata",
    "logging": "log records, loggers, handlers, formatters and their configuration",
    "multiprocessing": "worker processes, pools, queues, locks, managers and shared memory",
    "unittest": "test cases, test suites, assertions, test runners and mock objects",
    "xml": "XML documents, elements, nodes, attributes, parsers and DOM trees",
}
TREC = {
    "DESC": "asks for a definition, a description, a reason or how to do something",
    "ENTY": "asks for a thing: an animal, product, food, colour, event, language, work or term",
    "ABBR": "asks what an abbreviation stands for, or how something is abbreviated",
    "HUM": "asks for a person, a group, an organisation or a title",
    "LOC": "asks for a place: a city, country, state, mountain or other location",
    "NUM": "asks for a number: a count, date, distance, amount of money, age, size or percentage",
}
SST2 = {
    "negative": "the reviewer dislikes the film: it is bad, dull, failed",
    "positive": "the reviewer likes the film: it is good, moving, funny, well made",
}


def definitions(labels: Sequence[str]) -> dict[str, str]:
    """Each label with its definition; a name that speaks for itself (card_arrival) in words."""
    for known in (STDLIB, TREC, SST2):
        if set(labels) == set(known):
            return {k: known[k] for k in labels}
    return {k: k.replace("_", " ").replace("?", "") if "_" in k else "" for k in labels}
