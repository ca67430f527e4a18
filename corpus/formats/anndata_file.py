"""AnnData on disk, as HDF5 or as zarr of any age: the parts of it that cells need, without reading the rest."""

from pathlib import Path, PurePosixPath
from typing import Any

import anndata
import h5py
import pandas as pd
import zarr

from corpus.formats.bundle import Bundle
from corpus.formats.cellfile import Parts
from corpus.modality import SourceError

_ROOTS = ("zarr.json", ".zgroup", ".zmetadata")


def from_hdf5(path: Path) -> Parts:
    """Opens a .h5ad; what was written before encodings had names is left to anndata, which knows them all.

    Raises:
        SourceError: it holds no cell matrix.
    """
    file = h5py.File(path, mode="r")
    if not {"X", "obs", "var"} <= set(file) and "obs" not in file:
        found = ", ".join(list(file)[:10]) or "nothing"
        raise SourceError("damaged", f"must hold X, obs and var, but holds {found}; convert it")
    modern = all("encoding-type" in file[name].attrs for name in ("obs", "var") if name in file)
    return _from_group(file) if modern else _from_anndata(path)


def zarr_root(bundle: Bundle) -> str | None:
    """Returns where in a bundle a zarr store begins ('' is its top), or None."""
    found = [PurePosixPath(name) for name in bundle.names if PurePosixPath(name).name in _ROOTS]
    if not found:
        return None
    top = min(found, key=lambda name: len(name.parts)).parent
    return "" if str(top) == "." else str(top)


def from_zarr(path: Path, root: str) -> Parts:
    """Opens a folder or a zip with a zarr store of format 2 or 3.

    Reads element by element: other parts of a store may hold types that zarr does not know.
    """
    store: Any = path if path.is_dir() else zarr.storage.ZipStore(path, mode="r")
    return _from_group(zarr.open_group(store, mode="r", path=root, use_consolidated=False))


def _from_group(group: Any) -> Parts:
    missing = [name for name in ("obs", "var") if name not in group]
    if missing:
        raise SourceError("damaged", f"must hold X, obs and var, but has no {missing[0]}; convert it")
    var = anndata.io.read_elem(group["var"])
    found = {"X": (_stored(group["X"]), var)} if _has(group, "X") else {}
    if _has(group, "raw") and "X" in group["raw"]:
        raw = group["raw"]
        found["raw"] = (_stored(raw["X"]), anndata.io.read_elem(raw["var"]) if "var" in raw else var)
    layers = group.get("layers", {})
    found |= {str(name): (_stored(layers[name]), var) for name in layers}
    if not found:
        raise SourceError("damaged", "must hold a matrix in X, raw or layers, but has none; convert it")
    return Parts(obs=_unnamed(anndata.io.read_elem(group["obs"])), matrices=found, uns=_texts(group))


def _from_anndata(path: Path) -> Parts:
    data: Any = anndata.read_h5ad(path, backed="r")
    layers = {str(name): (data.layers[name], data.var) for name in data.layers if name is not None}  # None is X
    raw = {} if data.raw is None else {"raw": (data.raw.X, data.raw.var)}
    uns = {str(name): value for name, value in data.uns.items() if isinstance(value, str)}
    matrices = {"X": (data.X, data.var), **raw, **layers}
    return Parts(obs=_unnamed(data.obs), matrices=matrices, uns=uns)


def _has(group: Any, name: str) -> bool:
    return name in group and group[name].attrs.get("encoding-type") != "null"


def _stored(element: Any) -> Any:
    return element if isinstance(element, h5py.Dataset | zarr.Array) else anndata.io.sparse_dataset(element)


def _unnamed(obs: pd.DataFrame) -> pd.DataFrame:
    """Returns obs with columns named by texts; a file may number them."""
    return obs.rename(columns=str)


def _texts(group: Any) -> dict[str, str]:
    """Returns the texts of uns; anything else there may be large or of an unknown type."""
    uns = group.get("uns", {})
    found = {}
    for name in uns:
        if uns[name].attrs.get("encoding-type") == "string":
            found[str(name)] = str(anndata.io.read_elem(uns[name]))
    return found
