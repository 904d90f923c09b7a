"""A model folder with odd settings is refused or read quickly: no setting makes loading slow or large."""

import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cellweft
from cellweft.errors import FormatError

ODD = (10**9, 2**40, 0, -1, 1.5, True, None, "many", [], {})
MOST_SECONDS = 2.0  # of CPU time for one folder


@pytest.fixture(scope="module")
def folders(world: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    quick = {"k": 4, "hidden": 8, "epochs": 1, "ae_epochs": 1}
    stimpute = cellweft.Imputer(preset="stimpute", settings=quick).fit(world.pair, progress=False)
    path = tmp_path_factory.mktemp("models") / "stimpute.model"
    return {
        "auto": world.folder / "auto.model",
        "placer": world.folder / "placer.model",
        "stimpute": stimpute.save(path),
    }


def odd_configs(whole: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a config with each entry replaced by an odd value or removed, and a description of the change."""
    for key, value in whole.items():
        for odd in ODD:
            yield f"{key} = {odd!r}", whole | {key: odd}
        yield f"no {key}", {name: one for name, one in whole.items() if name != key}
        if isinstance(value, dict):
            for name in value:
                for odd in ODD:
                    yield f"{key}.{name} = {odd!r}", whole | {key: value | {name: odd}}


@pytest.mark.parametrize("kind", ["auto", "placer", "stimpute"])
def test_no_setting_makes_loading_slow_or_large(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    for name in ("weights.safetensors", "genes.parquet"):
        (tmp_path / name).symlink_to(folders[kind] / name)
    whole = json.loads((folders[kind] / "config.json").read_text())
    before, faults = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for what, config in odd_configs(whole):
        (tmp_path / "config.json").write_text(json.dumps(config))
        start = time.process_time()
        try:
            cellweft.load(tmp_path)
        except FormatError as error:
            faults += [] if "expected" in str(error) else [f"{what}: says too little: {error}"]
        except Exception as error:
            faults.append(f"{what}: {type(error).__name__}: {error}")
        if time.process_time() - start > MOST_SECONDS:
            faults.append(f"{what}: {time.process_time() - start:.0f} s")
    assert not faults, "\n".join(faults)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 * 2**10  # in KB: 500 MB


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        *(("auto", one) for one in ("level_hidden",)),
        *(("placer", one) for one in ("hidden", "middle", "latent")),
        *(("stimpute", one) for one in ("hidden", "latent", "k")),
    ],
)
def test_a_width_that_does_not_fit_the_weights_is_named(
    kind: str, setting: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("weights.safetensors", "genes.parquet"):
        (tmp_path / name).symlink_to(folders[kind] / name)
    config = json.loads((folders[kind] / "config.json").read_text())
    config["settings"][setting] = 10**7
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(FormatError, match=f"expected 10,000,000 rows, as {setting} states, got [0-9]+"):
        cellweft.load(tmp_path)
