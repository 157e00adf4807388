"""A saved state comes back bit for bit, or not at all."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from bmi_components.errors import StateError
from bmi_components.snapshot import Snapshot

SNAPSHOT = Snapshot(
    "LinearReservoir",
    "reservoir 1",
    3,
    86_400.0,
    {
        "storage": np.array([1.0, np.nan, -0.0]),
        "hidden": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "age": np.array([1, 2], dtype=np.int64),
        "nothing": np.empty((0, 3), dtype=np.float32),
    },
)
DATA = SNAPSHOT.to_bytes()


def test_a_state_comes_back_bit_for_bit() -> None:
    back = Snapshot.from_bytes(DATA, "the state")
    assert (back.component, back.identity, back.size, back.time) == (
        "LinearReservoir",
        "reservoir 1",
        3,
        86_400.0,
    )
    assert back.arrays.keys() == SNAPSHOT.arrays.keys()
    for name, array in SNAPSHOT.arrays.items():
        assert back.arrays[name].dtype == array.dtype
        assert back.arrays[name].shape == array.shape
        assert back.arrays[name].tobytes() == array.tobytes()
    assert back.to_bytes() == DATA


@given(st.integers(0, 8 * len(DATA) - 1))
def test_every_flipped_bit_is_noticed(bit: int) -> None:
    damaged = bytearray(DATA)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(StateError):
        Snapshot.from_bytes(bytes(damaged), "the state")


@given(st.integers(0, len(DATA) - 1))
def test_every_cut_is_noticed(length: int) -> None:
    with pytest.raises(StateError):
        Snapshot.from_bytes(DATA[:length], "the state")


@given(st.binary(max_size=200))
def test_noise_is_not_a_state(noise: bytes) -> None:
    with pytest.raises(StateError):
        Snapshot.from_bytes(noise, "the state")


def test_pickled_code_is_refused_unread() -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return pytest.fail, ("pickled code ran",)

    with pytest.raises(StateError):
        Snapshot.from_bytes(pickle.dumps(Trap()), "the state")


def test_somebody_elses_safetensors_file_is_refused() -> None:
    with pytest.raises(StateError, match="not a state saved by a component"):
        Snapshot.from_bytes(safetensors.numpy.save({"w": np.zeros(2)}), "weights.safetensors")


def test_files_are_written_whole_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "states" / "day_1.safetensors"
    SNAPSHOT.save(path)
    SNAPSHOT.save(path)
    assert [file.name for file in path.parent.iterdir()] == ["day_1.safetensors"]
    assert Snapshot.load(path).to_bytes() == DATA
    with pytest.raises(StateError, match="no saved state"):
        Snapshot.load(tmp_path / "absent")
    with pytest.raises(StateError, match="cannot be read"):
        Snapshot.load(tmp_path)


@pytest.mark.parametrize(
    ("owner", "message"),
    [
        (("DeltaHBV", "reservoir 1", 3), "state of a LinearReservoir, not of a DeltaHBV"),
        (("LinearReservoir", "reservoir 2", 3), "saved with the model 'reservoir 1'"),
        (("LinearReservoir", "reservoir 1", 4), "holds 3 catchments"),
    ],
)
def test_a_state_of_another_owner_is_refused(owner: tuple[str, str, int], message: str) -> None:
    SNAPSHOT.check_owner("LinearReservoir", "reservoir 1", 3, "the state")
    with pytest.raises(StateError, match=message):
        SNAPSHOT.check_owner(*owner, "the state")
