"""The public names: all there, and cheap until they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import jsdsd

HEAVY = ["torch", "diffusers", "transformers", "matplotlib", "skimage", "trimesh", "PIL", "numpy"]


def modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_import_loads_nothing_heavy() -> None:
    assert not modules_after("import jsdsd; dir(jsdsd)") & set(HEAVY)


def test_the_command_lines_help_loads_nothing_heavy() -> None:
    assert not modules_after("import jsdsd.__main__; jsdsd.__main__.parser().format_help()") & set(HEAVY)


def test_an_asset_loads_neither_a_model_library_nor_plots() -> None:
    loaded = modules_after("import jsdsd; jsdsd.Asset; jsdsd.render; jsdsd.JSD")
    assert "torch" in loaded
    assert not loaded & {"diffusers", "transformers", "matplotlib", "skimage", "trimesh"}


@pytest.mark.parametrize("name", jsdsd.__all__)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(jsdsd, name) is not None
    assert name in dir(jsdsd)


def test_names_are_the_modules_own() -> None:
    from jsdsd.objectives import SDS
    from jsdsd.scene.asset import Asset

    assert jsdsd.SDS is SDS
    assert jsdsd.Asset is Asset


def test_star_import_gives_all_names() -> None:
    names: dict[str, object] = {}
    exec("from jsdsd import *", names)
    assert set(jsdsd.__all__) <= set(names)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'jsdsd' has no attribute 'genrate'"):
        _ = jsdsd.genrate


def test_version_is_the_packages() -> None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        assert jsdsd.__version__ == version("jsdsd")
    except PackageNotFoundError:
        pytest.skip("runs from a folder that is not installed")


def test_loading_the_toybox_says_nothing() -> None:
    """What a newcomer sees is ours: no library warns of things (torchvision) that nothing here needs."""
    code = "from jsdsd.sdxl.guidance import Guidance; Guidance.load('toybox')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("", "")
