"""Preparing pictures: every kind of source and of picture, what is bad, what stops it, and how it goes on."""

import io
import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zlib
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageOps
from scipy.io import savemat

from repro.cli.data import data
from repro.cli.group import Group
from repro.data import DataError, labels, prepared
from repro.data import prepare as preparing
from repro.data.prepare import CHUNK, convert, prepare

SIDE = 16


def noise(width, height, seed=0, mode="RGB"):
    """Return a smooth picture of three different channels."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image, format_="JPEG", **options):
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def source(tmp_path):
    """Return a folder of two classes: six training and two validation pictures."""
    folder = tmp_path / "source"
    for at, (split, count) in enumerate([("train", 3), ("val", 1)]):
        for label, number in itertools.product(("ant", "bee"), range(count)):
            picture = noise(24 + number, 20, seed=100 * at + 10 * number + (label == "bee"))
            put(folder / split / label / f"{label}_{number}.JPEG", encoded(picture))
    return folder


def contents(out):
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


# One picture.


def test_the_short_side_is_scaled_and_the_centre_cut_out():
    """The same as Pillow's own steps, each by hand; and the file is RGB, quality 95, without subsampling."""
    picture = noise(50, 30)
    original = encoded(picture, quality=100)
    got = Image.open(io.BytesIO(convert(original, SIDE)))
    scaled = Image.open(io.BytesIO(original)).resize((27, 16), Image.Resampling.BICUBIC).crop((5, 0, 21, 16))
    assert (got.format, got.mode, got.size) == ("JPEG", "RGB", (16, 16))
    assert got.layer[0][1:3] == (1, 1)
    assert got.tobytes() == Image.open(io.BytesIO(encoded(scaled, quality=95, subsampling=0))).tobytes()


@pytest.mark.parametrize("size", [(30, 50), (16, 99), (17, 16), (3, 5), (1, 1)])
def test_any_size_becomes_the_square(size):
    """Also where the picture has to be enlarged, and where only one side fits already."""
    assert Image.open(io.BytesIO(convert(encoded(noise(*size)), SIDE))).size == (SIDE, SIDE)


def test_a_file_of_the_right_form_is_kept_byte_for_byte():
    """Whatever its quality; but not where it is grey, another format, or lies on its side."""
    right = encoded(noise(SIDE, SIDE), quality=60, comment=b"kept")
    assert convert(right, SIDE) == right
    exif = Image.Exif()
    exif[0x0112] = 6
    for other in (
        encoded(noise(SIDE, SIDE, mode="L")),
        encoded(noise(SIDE, SIDE), "PNG"),
        encoded(noise(SIDE, SIDE), exif=exif),
        encoded(noise(SIDE, SIDE + 1), comment=b"dropped"),
    ):
        made = convert(other, SIDE)
        assert made != other
        assert b"dropped" not in made
        assert Image.open(io.BytesIO(made)).mode == "RGB"


def with_transparency(mode):
    """Return a PNG whose left half is opaque red (or dark grey), and whose right half is transparent."""
    picture = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    picture.paste((200, 0, 0, 255), (0, 0, 16, 32))
    if mode == "P":
        palette = Image.new("P", (32, 32), 1)
        palette.putpalette([200, 0, 0, 0, 0, 0])
        palette.paste(0, (0, 0, 16, 32))
        return encoded(palette, "PNG", transparency=1)
    if mode == "RGB":
        return encoded(picture.convert("RGB"), "PNG", transparency=(0, 0, 0))
    return encoded(picture.convert(mode), "PNG")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_what_is_transparent_shows_white(mode):
    """By an alpha channel, a palette entry, or one colour that counts as none."""
    got = pixels(convert(with_transparency(mode), SIDE))
    assert abs(got[8, 13] - 255).max() <= 4
    dark = [60, 60, 60] if mode == "LA" else [200, 0, 0]
    assert abs(got[8, 3] - dark).max() <= 4


@pytest.mark.parametrize(
    ("mode", "format_"),
    [("L", "JPEG"), ("CMYK", "JPEG"), ("YCbCr", "JPEG"), ("P", "PNG"), ("P", "GIF"), ("1", "PNG"), ("CMYK", "TIFF")],
)
def test_every_mode_becomes_the_colours_it_shows(mode, format_):
    """Greyscale, print colours, palettes and bits, compared with Pillow's own conversion.

    Palettes and bits make noise of a smooth picture, which a JPEG file does not keep so well.
    """
    picture = noise(SIDE, SIDE, mode=mode)
    file = encoded(picture, format_, **({"quality": 95} if format_ == "JPEG" else {}))
    shown = np.asarray(Image.open(io.BytesIO(file)).convert("RGB")).astype(int)
    assert abs(pixels(convert(file, SIDE)) - shown).mean() < (8 if mode in "1P" else 3)


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight(format_):
    """65535 is white and half of it grey, where a cut would make all of it white."""
    levels = np.full((SIDE, SIDE), 32768, np.uint16)
    levels[:, 8:] = 65535
    got = pixels(convert(encoded(Image.fromarray(levels), format_), SIDE))
    assert abs(got[8, 2] - 128).max() <= 2
    assert abs(got[8, 13] - 255).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_set_upright(orientation):
    """As Pillow does it by the same EXIF tag, before the centre is cut out."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(noise(40, 24), exif=exif, quality=100)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
    assert abs(pixels(convert(file, SIDE)) - pixels(convert(encoded(upright, "PNG"), SIDE))).max() <= 1


def test_damaged_exif_data_does_not_make_a_picture_bad():
    """It says nothing of the pixels; nor is its warning shown."""
    file = encoded(noise(40, 24), exif=b"Exif\0\0XX*\0rubbish")
    assert Image.open(io.BytesIO(convert(file, SIDE))).size == (SIDE, SIDE)


def bomb():
    """Return a PNG of a few bytes that says it has 3.6 billion pixels."""
    file = bytearray(encoded(Image.new("L", (1, 1)), "PNG"))
    file[16:24] = (60_000).to_bytes(4, "big") * 2
    file[29:33] = zlib.crc32(file[12:29]).to_bytes(4, "big")
    return bytes(file)


BAD = {
    "truncated": (encoded(noise(64, 64))[:-200], "truncated"),
    "zero": (b"", "empty"),
    "text": (b"not a picture", "not a picture of a known format"),
    "bomb": (bomb(), "more than [0-9]+ pixels"),
    "thin": (encoded(Image.new("1", (1_000_000, 1)), "PNG"), "so long and thin"),
    "float": (encoded(Image.new("F", (20, 20)), "TIFF"), "floating-point"),
}


# A whole set.


def test_a_folder_of_train_and_val_is_prepared(source, tmp_path):
    """Every picture is there in its place, and the manifest says so; a PNG by another name is none the worse."""
    put(source / "train" / "ant" / "ant_9.JPEG", encoded(noise(33, 44), "PNG"))
    put(source / "train" / "ant" / ".hidden", b"")
    told = []
    made, bad = prepare(source, tmp_path / "out", side=SIDE, jobs=1, progress=lambda *at: told.append(at))
    assert (made.classes, made.side, made.skipped, bad) == (("ant", "bee"), SIDE, 0, [])
    assert made.files["val"] == (("val/ant/ant_0.JPEG", 0), ("val/bee/bee_0.JPEG", 1))
    assert [path for path, _ in made.files["train"]][3:] == ["train/ant/ant_9.JPEG"] + [
        f"train/bee/bee_{i}.JPEG" for i in range(3)
    ]
    assert told[-1] == (9, 9)
    files = contents(tmp_path / "out")
    assert set(files) == {path for split in made.files.values() for path, _ in split} | {"manifest.json"}
    original = (source / "train" / "ant" / "ant_0.JPEG").read_bytes()
    assert files["train/ant/ant_0.JPEG"] == convert(original, SIDE)


def test_the_result_is_the_same_with_any_jobs_and_order(source, tmp_path, monkeypatch):
    """Byte for byte, also where the file system lists files in another order."""
    prepare(source, tmp_path / "one", side=SIDE, jobs=1)
    entries = labels._entries

    def shuffled(folder):
        found = entries(folder)
        random.Random(3).shuffle(found)
        return found

    monkeypatch.setattr(labels, "_entries", shuffled)
    prepare(source, tmp_path / "two", side=SIDE, jobs=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_class_folders_alone_are_the_training_split(source, tmp_path):
    """And a folder with test/ in place of val/ has its validation pictures there."""
    made, _ = prepare(source / "train", tmp_path / "a", side=SIDE, jobs=1)
    assert (len(made.files["train"]), made.files["val"]) == (6, ())
    (source / "val").rename(source / "test")
    both, _ = prepare(source, tmp_path / "b", side=SIDE, jobs=1)
    assert [len(both.files[split]) for split in ("train", "val")] == [6, 2]


def test_files_of_a_flat_folder_are_classed_by_their_names(tmp_path):
    """The class is what stands before the first underscore; suffixes become one."""
    for name in ("n01_a_b.JPEG", "n02_c.jpg", "n01_d.e.png"):
        put(tmp_path / "flat" / name, encoded(noise(20, 20), "PNG" if name.endswith("png") else "JPEG"))
    made, _ = prepare(tmp_path / "flat", tmp_path / "out", side=SIDE, jobs=1)
    assert [path for path, _ in made.files["train"]] == [
        "train/n01/n01_a_b.JPEG", "train/n01/n01_d.e.JPEG", "train/n02/n02_c.JPEG",
    ]  # fmt: skip


def archive(files, **options):
    """Return a tar archive of {name: content}; the value may be a ready header instead."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=options.pop("mode", "w"), **options) as tar:
        for name, content in files.items():
            member = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = 0 if content is member else len(content)
            tar.addfile(member, None if content is member else io.BytesIO(content))
    return file.getvalue()


@pytest.fixture
def imagenet(tmp_path):
    """Return a folder with two classes of ImageNet's archives, and what the same pictures are as files."""
    folder, pictures = tmp_path / "imagenet", {}
    classes = {}
    for at, wnid in enumerate(["n02", "n01"]):
        files = {f"{wnid}_{i}.JPEG": encoded(noise(30, 20 + i, seed=10 * at + i)) for i in range(2)}
        classes[f"{wnid}.tar"] = archive(files)
        pictures |= {f"train/{wnid}/{name}": content for name, content in files.items()}
    put(folder / "ILSVRC2012_img_train.tar", archive(classes))
    val = {f"ILSVRC2012_val_0000000{i}.JPEG": encoded(noise(20, 30, seed=50 + i)) for i in (3, 1, 2)}
    put(folder / "ILSVRC2012_img_val.tar", archive(val))
    truth = ["n01", "n02", "n01"]
    pictures |= {f"val/{truth[int(name[-6]) - 1]}/{name}": content for name, content in val.items()}
    synsets = np.array(
        [(2, "n02", "b"), (1, "n01", "a"), (7, "n09", "parent")],
        dtype=[("ILSVRC2012_ID", object), ("WNID", object), ("words", object)],
    )
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets.reshape(-1, 1)})
    kit = {
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": b"1\n2\n1\n",
        "ILSVRC2012_devkit_t12/data/meta.mat": meta.getvalue(),
    }
    put(folder / "ILSVRC2012_devkit_t12.tar.gz", archive(kit, mode="w:gz"))
    return folder, pictures


@pytest.mark.parametrize("form", ["archive", "folder", "data"])
def test_imagenet_as_distributed_is_read_from_its_archives(imagenet, tmp_path, form):
    """The same files come out as of the unpacked pictures; the kit may be an archive or a folder."""
    folder, pictures = imagenet
    if form != "archive":
        with tarfile.open(folder / "ILSVRC2012_devkit_t12.tar.gz") as kit:
            kit.extractall(folder, filter="data")
        (folder / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    if form == "data":
        (folder / "ILSVRC2012_devkit_t12" / "data").rename(folder / "data")
    for name, content in pictures.items():
        put(tmp_path / "plain" / name, content)
    made, _ = prepare(folder, tmp_path / "out", side=SIDE, jobs=1)
    plain, _ = prepare(tmp_path / "plain", tmp_path / "plain-out", side=SIDE, jobs=1)
    assert made.digest == plain.digest
    assert made.files == plain.files
    assert made.classes == ("n01", "n02")


@pytest.fixture
def tiny(tmp_path):
    """Return a folder laid out as Tiny ImageNet is distributed, and what the same pictures are in class folders."""
    folder, pictures = tmp_path / "tiny", {}
    for at, wnid in enumerate(["n02", "n01"]):
        for i in range(2):
            content = encoded(noise(20, 20, seed=10 * at + i))
            put(folder / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", content)
            pictures[f"train/{wnid}/{wnid}_{i}.JPEG"] = content
        put(folder / "train" / wnid / f"{wnid}_boxes.txt", b"n02_0.JPEG\t0\t0\t1\t1\n")
        put(folder / "val" / "images" / f"val_{at}.JPEG", content)
        pictures[f"val/{wnid}/val_{at}.JPEG"] = content
    put(folder / "val" / "val_annotations.txt", b"val_0.JPEG\tn02\t0\t0\t1\t1\nval_1.JPEG\tn01\t0\t0\t1\t1\n")
    put(folder / "test" / "images" / "test_0.JPEG", content)
    return folder, pictures


def test_tiny_imagenet_is_read_as_distributed(tiny, tmp_path):
    """Its pictures lie one folder deeper, and the classes of val/ in a list; test/ has no classes: it is left alone."""
    folder, pictures = tiny
    for name, content in pictures.items():
        put(tmp_path / "plain" / name, content)
    made, _ = prepare(folder, tmp_path / "out", side=SIDE, jobs=1)
    plain, _ = prepare(tmp_path / "plain", tmp_path / "plain-out", side=SIDE, jobs=1)
    assert (made.digest, made.files, made.classes) == (plain.digest, plain.files, ("n01", "n02"))


@pytest.mark.parametrize("listed", ["", "val_0.JPEG\tn02\n", "val_0.JPEG\tn02\nval_1.JPEG\n", "\xff\tn01"])
def test_a_picture_of_tiny_imagenet_without_a_class_is_refused(tiny, listed):
    put(tiny[0] / "val" / "val_annotations.txt", listed.encode("latin1"))
    with pytest.raises(DataError, match=r"val_\d\.JPEG has no class in .*val_annotations\.txt; fetch the set again"):
        labels.listing(tiny[0])


def link(name, kind=tarfile.SYMTYPE):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    return member


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ({"../n01.tar": b""}, "leads out of its folder"),
        ({"/n01.tar": b""}, "leads out of its folder"),
        ({"n01.tar": archive({"../../x.JPEG": b"x"})}, "leads out of its folder"),
        ({"n01.tar": archive({"n01_1.JPEG": link("n01_1.JPEG")})}, "is a link"),
        ({"n01.tar": archive({"a\nb.JPEG": b"x"})}, "cannot be the name"),
        ({"n01.tar": archive({".JPEG": b"x"})}, "cannot be the name"),
        ({"..tar": archive({"a.JPEG": b"x"})}, "cannot be the name"),
        ({"readme.txt": b"x"}, "not an archive of a class"),
        ({"n01.tar": archive({})}, "holds no pictures"),
        ({"n01.tar": archive({"n01_1.JPEG": b"x" * 600})[:1200]}, "damaged or cut short"),
        ({"n01.tar": b"rubbish" * 200}, "damaged or cut short"),
        ({"n01.tar": b""}, "damaged or cut short"),
    ],
)
def test_an_archive_that_is_not_imagenets_is_refused(tmp_path, train, words):
    """Nothing is written, least of all outside of OUT."""
    put(tmp_path / "source" / "ILSVRC2012_img_train.tar", archive(train))
    with pytest.raises(DataError, match=words) as caught:
        prepare(tmp_path / "source", tmp_path / "out", side=SIDE, jobs=1)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_archive_cut_short_is_not_taken_for_a_smaller_one(imagenet, tmp_path):
    """Wherever it is cut: in a picture, in a header, or between two members."""
    path = imagenet[0] / "ILSVRC2012_img_val.tar"
    whole = path.read_bytes()
    for length in (0, 100, 512, 700, 1536, len(whole) - 10240 + 512):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"damaged or cut short|holds \d pictures and"):
            labels.listing(imagenet[0])


@pytest.mark.parametrize(
    "extra", ["ILSVRC2010_images_train.tar", "ILSVRC2010_img_val.tar", "ILSVRC2012_images_val.tar"]
)
def test_archives_of_two_sets_in_one_folder_are_refused(imagenet, extra):
    """Which of them is meant cannot be known."""
    put(imagenet[0] / extra, archive({}))
    with pytest.raises(DataError, match="are not halves of one set; keep each set in its own folder"):
        labels.listing(imagenet[0])


@pytest.mark.parametrize("damage", ["missing", "rubbish", "short", "cut"])
def test_a_development_kit_that_does_not_serve_is_one_line(imagenet, tmp_path, damage):
    """Without it the validation pictures have no labels."""
    folder, _ = imagenet
    kit = folder / "ILSVRC2012_devkit_t12.tar.gz"
    content = kit.read_bytes()
    kit.unlink()
    if damage == "rubbish":
        put(folder / "data" / "meta.mat", b"rubbish")
        put(folder / "data" / "ILSVRC2012_validation_ground_truth.txt", b"1\n2\n1\n")
    elif damage == "short":
        put(folder / "ILSVRC2012_img_val.tar", archive({"ILSVRC2012_val_00000001.JPEG": b"x"}))
        kit.write_bytes(content)
    elif damage == "cut":
        kit.write_bytes(content[: len(content) // 2])
    words = {
        "missing": "put ILSVRC2012_devkit_t12.tar.gz",
        "short": "holds 1 pictures and the development kit 3 labels",
    }
    with pytest.raises(DataError, match=words.get(damage, "damaged")) as caught:
        labels.listing(folder)
    assert "\n" not in str(caught.value)


# Bad pictures.


@pytest.fixture
def with_bad(source):
    """Return the source with one picture of each bad kind."""
    for name, (content, _) in BAD.items():
        put(source / "train" / "bee" / f"{name}.JPEG", content)
    return source


def test_bad_pictures_are_all_named_and_nothing_counts_as_whole(with_bad, tmp_path):
    """Each on a line with its reason, in order; replaced or removed, the same call goes on and ends."""
    with pytest.raises(DataError) as caught:
        prepare(with_bad, tmp_path / "out", side=SIDE, jobs=1)
    first, *lines = str(caught.value).splitlines()
    assert first.startswith(f"{len(BAD)} of {8 + len(BAD)} pictures are bad")
    for line, name in zip(lines, sorted(BAD), strict=True):
        path = with_bad / "train" / "bee" / f"{name}.JPEG"
        assert re.match(f"bad: {re.escape(str(path))}: .*{BAD[name][1]}", line), line
    with pytest.raises(DataError, match="not prepared: run `repro data prepare SOURCE OUT`"):
        prepared.load(tmp_path / "out")
    for name in BAD:
        (with_bad / "train" / "bee" / f"{name}.JPEG").unlink()
    put(with_bad / "train" / "bee" / "text.JPEG", encoded(noise(20, 20)))
    made, _ = prepare(with_bad, tmp_path / "out", side=SIDE, jobs=1)
    assert len(made.files["train"]) == 7


def test_bad_pictures_can_be_left_out(with_bad, tmp_path):
    """They are counted and named; the same call without leave finds them again."""
    made, bad = prepare(with_bad, tmp_path / "out", side=SIDE, jobs=1, skip_bad=True)
    assert made.skipped == len(bad) == len(BAD)
    assert prepare(with_bad, tmp_path / "out", side=SIDE, jobs=1, skip_bad=True) == (made, bad)
    with pytest.raises(DataError, match="pictures are bad"):
        prepare(with_bad, tmp_path / "out", side=SIDE, jobs=1)


def test_a_class_of_bad_pictures_alone_cannot_be_left_out(source, tmp_path):
    """A class would vanish, and all labels behind it change."""
    put(source / "train" / "cat" / "a.JPEG", b"")
    with pytest.raises(DataError, match="no picture of class cat in train can be used"):
        prepare(source, tmp_path / "out", side=SIDE, jobs=1, skip_bad=True)


# What stops it.


def test_a_source_that_does_not_serve_is_one_line(source, tmp_path):
    """Empty classes, classes without training, no pictures, two of one name, odd names, and folders too deep."""

    def refused(words):
        with pytest.raises(DataError, match=words) as caught:
            prepare(source, tmp_path / "out", side=SIDE, jobs=1)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()

    (source / "train" / "cat").mkdir()
    refused("no pictures in .*train/cat")
    put(source / "train" / "cat" / "x" / "y.JPEG", b"")
    refused("is a folder in a class folder")
    shutil.rmtree(source / "train" / "cat")
    put(source / "val" / "dog" / "x.JPEG", b"")
    refused("dog in val, but not in train")
    shutil.rmtree(source / "val" / "dog")
    put(source / "train" / "ant" / "ant_0.png", b"")
    refused("would both become train/ant/ant_0.JPEG")
    (source / "train" / "ant" / "ant_0.png").rename(source / "train" / "ant" / "a\tb.png")
    refused("cannot be the name")
    (source / "train" / "ant" / "a\tb.png").rename(source / "train" / "loose.png")
    refused("lies beside class folders")
    shutil.rmtree(source)
    refused("no such folder")
    source.mkdir()
    refused("holds no pictures")
    put(source / "README", b"")
    refused("does not name its class")


def test_out_may_not_lie_in_the_source_nor_hold_other_things(source, tmp_path):
    """Nor the other way round; a file is no folder."""
    for out in (source, source / "train" / "x", tmp_path):
        with pytest.raises(DataError, match="one in the other"):
            prepare(source, out, side=SIDE, jobs=1)
    put(tmp_path / "full" / "thesis.tex", b"")
    with pytest.raises(DataError, match="holds other things"):
        prepare(source, tmp_path / "full", side=SIDE, jobs=1)
    with pytest.raises(DataError, match="is a file"):
        prepare(source, tmp_path / "full" / "thesis.tex", side=SIDE, jobs=1)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.tex"]


def test_out_of_another_side_or_source_is_left_alone(source, tmp_path):
    """What was prepared stays as it is."""
    out = tmp_path / "out"
    prepare(source, out, side=SIDE, jobs=1)
    before = contents(out)
    with pytest.raises(DataError, match="was prepared with side 16, not 17"):
        prepare(source, out, side=SIDE + 1, jobs=1)
    put(source / "train" / "ant" / "ant_1.JPEG", encoded(noise(40, 40)))
    with pytest.raises(DataError, match=r"from something else: SOURCE has no train/ant/ant_1.JPEG, or another"):
        prepare(source, out, side=SIDE, jobs=1)
    assert contents(out) == before


def test_too_small_a_disk_is_told_before_anything_is_written(source, tmp_path, monkeypatch):
    """From the space that prepared pictures take."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(DataError, match=r"disk with 0.0 GB free, and 8 pictures need about"):
        prepare(source, tmp_path / "out", side=SIDE, jobs=1)
    assert contents(tmp_path / "out") == {}


def test_a_full_disk_is_one_line_and_leaves_nothing_half(source, tmp_path, monkeypatch):
    """The part is removed, and what was done before is kept."""
    path = tmp_path / "a.JPEG"

    def fail(_path, _content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(preparing.Path, "write_bytes", fail)
    with pytest.raises(DataError, match=r"cannot write .*a.JPEG: No space left on device; what is done stays"):
        preparing._write(path, b"x")
    assert list(tmp_path.glob(".*")) == []


def test_a_folder_that_cannot_be_written_is_one_line(source, tmp_path):
    """Also where a folder stands in the place of a file, and an error comes from a worker."""
    (tmp_path / "out" / "train" / "ant" / "ant_1.JPEG").mkdir(parents=True)
    put(tmp_path / "out" / "journal.jsonl", b'{"side": 16}\n')
    with pytest.raises(DataError, match=r"cannot write .*ant_1.JPEG"):
        prepare(source, tmp_path / "out", side=SIDE, jobs=1)
    with pytest.raises(DataError, match="cannot write"):
        prepare(source, Path("/proc/nowhere"), side=SIDE, jobs=1)


def test_two_at_a_time_do_not_write_one_set(source, tmp_path):
    """The second is told so."""
    (tmp_path / "out").mkdir()
    with preparing._alone(tmp_path / "out"), pytest.raises(DataError, match="another process is preparing"):
        prepare(source, tmp_path / "out", side=SIDE, jobs=1)


# Going on.


def test_what_is_whole_is_kept_and_the_rest_done(source, tmp_path, monkeypatch):
    """Files missing, cut short, altered or half-written are made again; others are not touched."""
    out = tmp_path / "out"
    prepare(source, out, side=SIDE, jobs=1)
    before = contents(out)
    entries = prepared.read_manifest(out).entries
    lines = [preparing._line(*item) for item in entries.items()]
    (out / "manifest.json").unlink()
    put(out / "journal.jsonl", ('{"side": 16}\n' + "".join(lines) + '["train/ant/ant').encode())
    kept, cut, altered, gone = (out / path for path in list(entries)[:4])
    os.utime(kept, (1, 1))
    cut.write_bytes(before[f"train/ant/{cut.name}"][:50])
    altered.write_bytes(altered.read_bytes()[:-3] + b"xxx")
    gone.unlink()
    put(out / "train" / "ant" / ".ant_0.JPEG.part", b"half")
    prepare(source, out, side=SIDE, jobs=2)
    assert contents(out) == before
    assert kept.stat().st_mtime == 1


def test_a_set_that_lost_a_file_or_gained_pictures_is_made_whole_again(source, tmp_path):
    """From its manifest; a whole one is just loaded."""
    out = tmp_path / "out"
    made, _ = prepare(source, out, side=SIDE, jobs=1)
    before = (out / "manifest.json").stat().st_mtime_ns
    assert prepare(source, out, side=SIDE, jobs=1) == (made, [])
    assert (out / "manifest.json").stat().st_mtime_ns == before
    (out / "val" / "bee" / "bee_0.JPEG").unlink()
    with pytest.raises(DataError, match=r"not whole: val/bee/bee_0.JPEG is missing"):
        prepared.load(out)
    assert prepare(source, out, side=SIDE, jobs=1) == (made, [])
    put(source / "train" / "cat" / "new.JPEG", encoded(noise(20, 20)))
    assert prepare(source, out, side=SIDE, jobs=1)[0].classes == ("ant", "bee", "cat")


SCRIPT = """
import sys
from repro.cli.group import Group
from repro.cli.data import data
if __name__ == "__main__":
    Group("repro", commands={"data": data})(sys.argv[1:])
"""


@pytest.fixture
def many(tmp_path):
    """Return a folder of 500 pictures that take a moment each, all links to one file: seconds, so a stop is in time."""
    put(tmp_path / "one.png", encoded(noise(400, 400), "PNG", compress_level=1))
    (tmp_path / "many" / "ant").mkdir(parents=True)
    for i in range(500):
        os.link(tmp_path / "one.png", tmp_path / "many" / "ant" / f"{i:03}.png")
    return tmp_path / "many"


def wait_for(what, seconds=60):
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "nothing came of it"
        time.sleep(0.005)


def begun(out):
    journal = out / "journal.jsonl"
    return journal.exists() and journal.read_text().count("\n") > CHUNK


def check_that_it_goes_on(many, out):
    """Nothing is marked whole; what is done is not done again, and the rest is."""
    assert not (out / "manifest.json").exists()
    done = [line.split('"')[1] for line in (out / "journal.jsonl").read_text().splitlines()[1:]]
    assert CHUNK <= len(done) < 500
    for name in done:
        os.utime(out / name, (1, 1))
    made, _ = prepare(many, out, side=64, jobs=2)
    assert len(made.files["train"]) == 500
    assert [name for name, _ in made.files["train"] if (out / name).stat().st_mtime == 1] == sorted(done)


def test_a_killed_run_leaves_nothing_behind_that_the_next_cannot_use(many, tmp_path):
    """Its processes end with it, and the same command goes on."""
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), "data", "prepare", str(many), str(out), "--side", "64", "--jobs", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        wait_for(lambda: begun(out) or process.poll() is not None)
        process.kill()
        told = process.communicate(timeout=30)[1]
    assert process.returncode == -signal.SIGKILL
    assert "Traceback" not in told
    wait_for(lambda: not alive(process.pid))
    check_that_it_goes_on(many, out)


def test_an_interrupted_run_ends_soon_and_the_same_command_goes_on(repro, many, source, tmp_path):
    """Exit code 130 and two lines, though the terminal sends Ctrl-C to every process."""
    out = tmp_path / "out"
    prepare(source, tmp_path / "other", side=SIDE, jobs=1)  # starts what new processes are forked from

    def interrupt():
        wait_for(lambda: begun(out))
        for pid in processes():
            if int(status(pid)[1]) == forkserver._forkserver._forkserver_pid:
                os.kill(pid, signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite run in the background ignores it
    try:
        thread.start()
        result = repro("prepare", many, out, "--side", "64", "--jobs", "2")
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.exit_code == 130
    assert result.stderr == "repro: what is done stays; run the same command again to continue\nrepro: interrupted\n"
    check_that_it_goes_on(many, out)


def status(pid):
    """Return the state, parent, group and session of a process; of one that is gone, what a dead one has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
    except OSError:
        return ["Z", "0", "0", "0"]


def processes():
    """Return all living processes."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if status(pid)[0] != "Z"]


def alive(session):
    """Return the living processes of a session."""
    return [pid for pid in processes() if int(status(pid)[3]) == session]


# The command line.


@pytest.fixture
def repro():
    """Return what runs the program with some arguments."""
    program = Group("repro", commands={"data": data})
    return lambda *arguments: CliRunner().invoke(program, ["data", *map(str, arguments)])


def test_the_commands_prepare_verify_and_tell(repro, source, tmp_path):
    """One line each of what came out, and the statistics as a table."""
    out = tmp_path / "out"
    result = repro("prepare", source, out, "--side", "16", "--jobs", "1")
    digest = prepared.load(out).digest
    assert (result.exit_code, result.output) == (0, f"{out}: 2 classes, 6 train, 2 val, 0 left out; {digest}\n")
    result = repro("verify", out)
    assert (result.exit_code, result.output) == (0, f"{out}: 8 files as they were prepared; {digest}\n")
    result = repro("stats", out)
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()] == ["red", "mean", "std"] + ["component"] * 3


def test_pictures_left_out_are_named(repro, with_bad, tmp_path):
    """With their reasons."""
    result = repro("prepare", with_bad, tmp_path / "out", "--side", "16", "--jobs", "1", "--skip-bad")
    assert result.exit_code == 0
    assert result.output.count("left out, bad: ") == len(BAD)
    assert f" {len(BAD)} left out; sha256:" in result.output


def test_verify_names_what_is_wrong(repro, source, tmp_path):
    """Exit code 2, a line each."""
    out = tmp_path / "out"
    prepare(source, out, side=SIDE, jobs=1)
    (out / "val" / "bee" / "bee_0.JPEG").unlink()
    put(out / "val" / "bee" / "new.JPEG", b"")
    result = repro("verify", out)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[1:] == [
        "repro: missing: val/bee/bee_0.JPEG",
        "repro: extra: val/bee/new.JPEG",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prepare", "nowhere", "out"], "nowhere: no such folder"),
        (["prepare", "source"], "Missing argument 'OUT'"),
        (["prepare", "source", "source/out"], "lie one in the other"),
        (["prepare", "source", "out", "--side", "0"], "Invalid value for '--side'"),
        (["prepare", "source", "out", "--jobs", "x"], "Invalid value for '--jobs'"),
        (["verify", "source"], "not prepared: run `repro data prepare SOURCE OUT`"),
        (["stats", "nowhere"], "not prepared: run `repro data prepare SOURCE OUT`"),
        (["verifi", "source"], "no command 'verifi' (did you mean verify?)"),
    ],
)
def test_wrong_use_is_one_line(repro, source, tmp_path, monkeypatch, arguments, words):
    """Exit code 2, and no traceback."""
    monkeypatch.chdir(tmp_path)
    result = repro(*arguments)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("repro: ")
    assert words in result.stderr


def test_the_commands_are_there_without_torch():
    """Their help needs nothing heavy."""
    code = "import sys; import repro.cli.data; sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
