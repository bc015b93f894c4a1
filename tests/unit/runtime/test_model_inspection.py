"""The image's inspected model classes."""

from __future__ import annotations

from pathlib import Path

from vllm_runtime.model_inspection import use_inspected


def test_files_of_the_image_are_put_where_vllm_looks(tmp_path: Path) -> None:
    image, cache = tmp_path / "image", tmp_path / "home" / ".cache" / "vllm"
    (image / "modelinfos").mkdir(parents=True)
    (image / "modelinfos" / "llama.json").write_text("of the image")
    (image / "modelinfos" / "bert.json").write_text("of the image")
    (cache / "modelinfos").mkdir(parents=True)
    (cache / "modelinfos" / "bert.json").write_text("own")

    use_inspected(cache, image)

    assert (cache / "modelinfos" / "llama.json").read_text() == "of the image"
    assert (cache / "modelinfos" / "bert.json").read_text() == "own"


def test_an_image_without_them_starts_all_the_same(tmp_path: Path) -> None:
    use_inspected(tmp_path / "cache", tmp_path / "absent")
