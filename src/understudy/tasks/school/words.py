"""Names, things and units of the school world."""

NAMES = (
    "Mia", "Noor", "Ben", "Ada", "Leo", "Zoe", "Sam", "Ivy", "Tom", "Eva",
    "Max", "Lin", "Omar", "Rosa", "Finn", "Nina", "Hugo", "Tara", "Jude", "Kim",
)  # fmt: skip

NOUNS = (
    "apples", "books", "coins", "marbles", "pencils", "stickers", "shells", "cards",
    "stamps", "buttons", "beads", "plums", "cookies", "stones", "tickets", "toys",
)  # fmt: skip

UNITS = {
    ("hours", "minutes"): 60,
    ("minutes", "seconds"): 60,
    ("metres", "centimetres"): 100,
    ("euros", "cents"): 100,
    ("kilograms", "grams"): 1000,
    ("kilometres", "metres"): 1000,
    ("centimetres", "millimetres"): 10,
    ("weeks", "days"): 7,
    ("days", "hours"): 24,
    ("years", "months"): 12,
}
"""Of each pair of units (large, small), how many small ones make a large one."""
