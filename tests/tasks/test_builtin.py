"""Built-in tasks: sizes, splits, labels, and readers of published formats on files made here."""

import numpy as np
import pytest
import torch
from PIL import Image

from understudy.errors import DataError, UnknownName
from understudy.signals import IGNORE
from understudy.students.families import build
from understudy.tasks import needs_data, task, tasks
from understudy.tasks.splits import cut, per_class

LANGUAGE = ("stdlib-lm", "school")  # of another form; each has tests of its own
OFFLINE = [name for name in tasks() if not needs_data(name) and name not in LANGUAGE]
FAMILY = {"digits": "cnn", "digits-full": "mlp", "stdlib-text": "text"}
INPUT_SIZES = ("in_channels", "in_features", "image_size", "vocabulary")


def ids(source):
    return set(source.ids.tolist())


class TestOffline:
    @pytest.mark.parametrize("name", OFFLINE)
    def test_parts_are_disjoint_and_the_division_is_a_function_of_split(self, name):
        one, same, other = task(name), task(name), task(name, split=1)
        assert not ids(one.train) & ids(one.validate)
        assert not ids(one.train) & ids(one.test)
        assert not ids(one.validate) & ids(one.test)
        assert torch.equal(one.test.ids, same.test.ids)
        assert torch.equal(one.train.labelled, same.train.labelled)
        assert not torch.equal(one.test.ids, other.test.ids)
        assert one.test.labelled.all()
        assert one.validate.labelled.all()

    @pytest.mark.parametrize("name", OFFLINE)
    def test_a_family_of_models_fits(self, name):
        found = task(name)
        family = FAMILY.get(name, "mlp")
        sizes = {k: v for k, v in found.model.items() if k in INPUT_SIZES}
        from understudy.students.families import families

        sizes = {k: v for k, v in sizes.items() if k in families()[family].inputs}
        model = build(family, classes=found.classes, **sizes)
        logits = found.call(model.eval(), found.example(3))
        assert logits.shape == (3, found.classes)
        assert bool(torch.isfinite(logits).all())

    @pytest.mark.parametrize("name", [n for n in OFFLINE if n != "digits-full"])
    def test_the_teacher_knows_all_labels_and_the_student_few(self, name):
        found = task(name)
        assert found.teach.labelled.all()
        assert torch.equal(found.teach.ids, found.train.ids)
        known = found.train.labelled
        assert 0 < int(known.sum()) < 0.35 * len(known)
        assert torch.equal(found.train.labels[known], found.teach.labels[known])


class TestDigits:
    def test_images_are_scikit_learns(self):
        from sklearn.datasets import load_digits

        found = task("digits", split=3)
        raw = load_digits()
        for part in (found.teach, found.validate, found.test):
            pixels = part.inputs * 6.017 + 4.884
            rows = part.ids.numpy()
            assert np.allclose(pixels.flatten(1).numpy(), raw.data[rows], atol=1e-5)
            assert np.array_equal(part.labels.numpy(), raw.target[rows])
        assert [len(p) for p in (found.train, found.validate, found.test)] == [997, 300, 500]

    def test_five_labels_a_class_others_ignored(self):
        labels = task("digits").train.labels
        assert torch.bincount(labels[labels != IGNORE]).tolist() == [5] * 10
        assert int((labels == IGNORE).sum()) == 947

    def test_seed_draws_other_labels_of_the_same_images(self):
        a, b = task("digits"), task("digits", seed=1)
        assert torch.equal(a.train.ids, b.train.ids)
        assert not torch.equal(a.train.labelled, b.train.labelled)

    def test_parts_are_stratified(self):
        for split in range(3):
            found = task("digits", split=split)
            for part in (found.teach, found.validate, found.test):
                share = torch.bincount(part.labels).double() / len(part)
                whole = torch.bincount(found.teach.labels).double() / 997
                assert float((share - whole).abs().max()) < 0.006

    def test_all_labels(self):
        assert task("digits-full").train.labelled.all()

    def test_inputs_have_unit_variance(self):
        x = task("digits").train.inputs
        assert abs(float(x.mean())) < 0.02
        assert abs(float(x.std()) - 1) < 0.02

    @pytest.mark.parametrize(
        ("labels", "words"), [(0, "not 0"), ("few", "'few'"), (200, "cannot be drawn")]
    )
    def test_refuses_other_numbers_of_labels(self, labels, words):
        with pytest.raises(DataError, match=words):
            task("digits", labels=labels)


class TestTables:
    def test_training_columns_are_standardised(self):
        for name in ("wine", "breast-cancer", "diabetes"):
            x = task(name).teach.inputs.double()
            assert float(x.mean(0).abs().max()) < 1e-5
            assert float((x.std(0, unbiased=False) - 1).abs().max()) < 1e-4

    def test_targets_of_the_regression_can_be_had_back(self):
        from sklearn.datasets import load_diabetes

        found = task("diabetes")
        back = found.test.labels * found.extras["target"]["std"] + found.extras["target"]["mean"]
        assert np.allclose(back.numpy(), load_diabetes().target[found.test.ids.numpy()], atol=1e-3)
        assert int(found.train.labelled.sum()) == 40


class TestText:
    def test_docstrings_come_from_their_package(self):
        import asyncio

        found = task("stdlib-text")
        everything = dict(
            zip(
                [t for part in found.extras["texts"].values() for t in part],
                torch.cat([p.labels for p in (found.teach, found.validate, found.test)]).tolist(),
                strict=True,
            )
        )
        doc = " ".join(asyncio.Queue.__doc__.split("\n\n")[0].split())
        assert found.labels[everything[doc]] == "asyncio"
        assert len(everything) > 1000

    def test_tokens_say_the_text(self):
        found = task("stdlib-text")
        batch = found.example(5)
        words = found.extras["tokenizer"].tokenizer
        for row, text in enumerate(found.extras["texts"]["validate"][:5]):
            length = int(batch.inputs["attention_mask"][row].sum())
            encoded = words.encode(text).ids[:48]
            assert batch.inputs["input_ids"][row, :length].tolist() == encoded
            assert not batch.inputs["input_ids"][row, length:].any()


class TestNames:
    def test_unknown_task_option_and_missing_folder(self, tmp_path):
        with pytest.raises(UnknownName, match="no task 'digit'; did you mean digits"):
            task("digit")
        with pytest.raises(UnknownName, match="did you mean split"):
            task("digits", splt=1)
        with pytest.raises(DataError, match="--data-dir"):
            task("cifar100")
        with pytest.raises(DataError, match="no folder 'cifar100' in"):
            task("cifar100", data_dir=tmp_path)

    def test_every_task_has_a_card(self):
        assert all((make.__doc__ or "").strip() for make in tasks().values())


def sheet(images, columns, path):
    """Tiles [N, S, S, C] row by row."""
    n, side = images.shape[:2]
    rows = n // columns
    a = images.reshape(rows, columns, side, side, -1).transpose(0, 2, 1, 3, 4)
    a = a.reshape(rows * side, columns * side, -1)
    Image.fromarray(a if a.shape[-1] == 3 else a[..., 0]).save(path, lossless=True)


@pytest.fixture
def data_dir(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "trec"
    folder.mkdir()
    rows = [f"{i % 6} Is caf\xe9 number {i} open ?" for i in range(600)]
    (folder / "train.all").write_text("\n".join(rows) + "\n", "latin-1")
    (folder / "test.all").write_text("\n".join(rows[:12]) + "\n", "latin-1")
    folder = tmp_path / "mnist"
    folder.mkdir()
    for name, n in (("train", 6000), ("test", 100)):
        labels = np.arange(n, dtype=np.uint8) % 10
        images = rng.integers(0, 256, (n, 28, 28, 1), dtype=np.uint8)
        sheet(images, 20, folder / f"{name}.png")
        np.save(folder / f"{name}-labels.npy", labels)
        np.save(tmp_path / f"{name}.npy", images)
    return tmp_path


class TestPublished:
    def test_a_sheet_is_cut_into_its_images(self, data_dir):
        found = task("mnist", data_dir=data_dir)
        assert [len(p) for p in (found.train, found.validate, found.test)] == [1000, 5000, 100]
        raw = np.load(data_dir / "train.npy")
        batch = found.train.batch(torch.tensor([7, 3]))
        rows = batch.index.numpy()
        expected = (raw[rows, None, :, :, 0].astype(np.float64) / 255 - 0.1307) / 0.3081
        assert np.allclose(batch.inputs.numpy(), expected, atol=1e-5)
        assert batch.labels.tolist() == (rows % 10).tolist()
        assert not ids(found.train) & ids(found.validate)

    def test_published_protocol_learns_from_everything_and_says_so(self, data_dir):
        found = task("mnist", data_dir=data_dir, protocol="published")
        assert len(found.train) == 6000
        assert found.validate is found.test
        assert "nothing may be chosen by it" in found.extras["notes"][0]

    def test_a_subset_is_stratified_and_keeps_ids(self, data_dir):
        found = task("mnist", data_dir=data_dir, subset=100)
        assert torch.bincount(found.train.labels).tolist() == [10] * 10
        assert ids(found.train) < ids(task("mnist", data_dir=data_dir).train)
        with pytest.raises(DataError, match="subset=5 "):
            task("mnist", data_dir=data_dir, subset=5)

    def test_cifar_in_five_sheets_and_its_view_pads_with_black(self, tmp_path):
        folder = tmp_path / "cifar100"
        folder.mkdir()
        colours = np.random.default_rng(0).integers(0, 256, (6000, 1, 1, 3), dtype=np.uint8)
        tiles = np.broadcast_to(colours, (6000, 32, 32, 3))
        for k in range(5):
            sheet(tiles[1200 * k : 1200 * (k + 1)], 40, folder / f"train-{k}.webp")
        sheet(tiles[:40], 40, folder / "test.webp")
        np.save(folder / "train-labels.npy", (np.arange(6000) % 100).astype(np.uint8))
        np.save(folder / "test-labels.npy", np.arange(40, dtype=np.uint8))
        (folder / "classes.txt").write_text("\n".join(f"class{k}" for k in range(100)))
        found = task("cifar100", data_dir=tmp_path)
        assert found.metrics == ("top5",)
        mean, std = np.array((0.5071, 0.4867, 0.4408)), np.array((0.2675, 0.2565, 0.2761))
        batch = found.train.batch(torch.arange(50))
        rows = batch.index.numpy()
        assert batch.labels.tolist() == (rows % 100).tolist()
        expected = (colours[rows, 0, 0] / 255.0 - mean) / std
        assert np.allclose(batch.inputs[:, :, 9, 31].numpy(), expected, atol=1e-5)
        seen = found.view(batch, seed=0, epoch=0).inputs
        inside = (seen - batch.inputs).abs().amax(1) < 1e-6
        black = (seen - torch.from_numpy(-mean / std).view(1, 3, 1, 1)).abs().amax(1) < 1e-6
        assert bool((inside | black).all())
        assert bool(inside[:, 8:24, 8:24].all())
        assert int(black.flatten(1).any(1).sum()) > 40

    def test_questions(self, data_dir):
        found = task("trec", data_dir=data_dir, max_length=5)
        assert len(found.train) == 100
        assert found.example().inputs["input_ids"].shape == (2, 5)
        first = found.extras["texts"]["train"][0]
        assert first == f"Is caf\xe9 number {int(found.train.ids[0])} open ?"
        assert found.train.labels[0] == found.train.ids[0] % 6
        assert found.labels == ("DESC", "ENTY", "ABBR", "HUM", "LOC", "NUM")
        with pytest.raises(UnknownName, match="protocol"):
            task("trec", data_dir=data_dir, protocol="official")

    def test_a_missing_file_is_named(self, data_dir):
        (data_dir / "mnist" / "test.png").unlink()
        with pytest.raises(DataError, match=r"test\.png is missing"):
            task("mnist", data_dir=data_dir)


class TestSplits:
    def test_exact_sizes_every_stratum_its_share(self):
        labels = np.repeat(np.arange(5), [100, 50, 25, 20, 5])
        parts = cut(200, (120, 40, 40), strata=labels, seed=3)
        assert [len(p) for p in parts] == [120, 40, 40]
        assert len(set(np.concatenate(parts).tolist())) == 200
        for part, share in zip(parts, (0.6, 0.2, 0.2), strict=True):
            counts = np.bincount(labels[part], minlength=5)
            assert np.abs(counts - share * np.array([100, 50, 25, 20, 5])).max() <= 2

    def test_a_class_of_one_stays_with_the_first_part(self):
        labels = np.array([0] * 20 + [1] * 20 + [2])
        for seed in range(20):
            train, validate = cut(41, (33, 8), strata=labels, seed=seed)
            assert 40 in train
            assert len(validate) == 8

    def test_seed_decides(self):
        assert not np.array_equal(cut(50, (25,), seed=0)[0], cut(50, (25,), seed=1)[0])
        assert np.array_equal(cut(50, (25,), seed=4)[0], cut(50, (25,), seed=4)[0])

    def test_per_class_draws_that_many(self):
        labels = np.repeat(np.arange(3), 10)
        assert np.bincount(labels[per_class(labels, 4, seed=0)]).tolist() == [4, 4, 4]
