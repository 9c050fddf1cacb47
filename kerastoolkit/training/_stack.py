"""The states and the data of models that are trained together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kerastoolkit.training._program import Program
from kerastoolkit.training._state import Array, Samples, State, Tensor
from kerastoolkit.training.network import Network


class Stack:
    """The states of the models in training, stacked along a leading axis; or that of one model, without the axis.

    Args:
        program: The program of their structure.
        networks: The models.
        stacked: Whether there is an axis of models.

    Attributes:
        state: The state of all of them, as tensors.
        traced: The hyper-parameters that differ between them, by their slot, as tensors of shape `(models,)`.
        fresh: The state of the metrics at the beginning of an epoch.
    """

    def __init__(self, program: Program, networks: Sequence[Network], *, stacked: bool) -> None:
        self.program, self.stacked = program, stacked
        states = [network.state[:3] for network in networks]  # metrics start afresh in each epoch
        slots = program.to_trace([network.values for network in networks])
        values: Any = {slot: [network.values[slot] for network in networks] for slot in slots}
        fresh: Any = program.fresh_metrics()
        parts: Any = states[0]
        if stacked:
            parts = [[np.stack(same) for same in zip(*part, strict=True)] for part in zip(*states, strict=True)]
            fresh = [np.stack([value] * len(states)) for value in fresh]
        else:
            values = {slot: same[0] for slot, same in values.items()}
        values = {slot: np.array(same, "float64") for slot, same in values.items()}
        self.traced, self.fresh = program.tensors(values), program.tensors(fresh)
        trainable, others, optimizer = program.tensors(list(parts))
        self.state = State(trainable, others, optimizer, self.fresh)
        self._read: State | None = None
        self._writes: list[tuple[int, str, int, float | Array]] = []

    def advance(
        self, members: Array | None, change: Callable[[State, dict[int, Tensor]], tuple[State, dict[str, Tensor]]]
    ) -> dict[str, Tensor]:
        """Replaces the state of some models by what a function makes of it.

        Args:
            members: Places of the models in the stack; None for all.
            change: From their state and their hyper-parameters to the new state and the results of the metrics.

        Returns:
            The results.
        """
        self.flush()
        program = self.program
        if members is None:
            self.state, results = change(self.state, self.traced)
        elif members[-1] - members[0] == len(members) - 1 and not program.compiles_each_size:
            # Neighbours are quicker to cut out.
            ends = int(members[0]), int(members[-1]) + 1
            before, part, after = program.cut(self.state, *ends)
            part, results = change(part, program.cut(self.traced, *ends)[1])
            self.state = program.joined(before, part, after)
        else:
            part, results = change(program.take(self.state, members), program.take(self.traced, members))
            self.state = program.put(self.state, members, part)
        self._read = None
        return results

    def reset_metrics(self) -> None:
        """Begins to count losses and metrics from zero."""
        self.flush()
        self.state = self.state._replace(metrics=self.fresh)

    def read(self, place: int) -> State:
        """The state of one model, as arrays."""
        self.flush()
        if self._read is None:
            self._read = self.program.arrays(self.state)
        if not self.stacked:
            return self._read
        return State(*[[value[place] for value in part] for part in self._read])

    def write(self, place: int, part: str, number: int, value: float | Array) -> None:
        """Sets one variable of one model, before the next step."""
        self._writes.append((place, part, number, value))

    def flush(self) -> None:
        """Carries out what `write` has noted."""
        if not self._writes:
            return
        writes, self._writes = self._writes, []
        parts = {name: list(getattr(self.state, name)) for name in State._fields}
        copies: dict[tuple[str, int], Any] = {}
        for place, part, number, value in writes:
            if (part, number) not in copies:
                copies[part, number] = np.array(self.program.arrays(parts[part][number]))
            if self.stacked:
                copies[part, number][place] = value
            else:
                copies[part, number][...] = value
        for (part, number), value in copies.items():
            parts[part][number] = self.program.tensor(value)
        self.state = State(**parts)
        self._read = None

    def put(self, source: State, place: int) -> None:
        """Sets one model to its state in another stack."""
        if not self.stacked:
            self.state = source
        else:
            index = np.array([place], "int32")
            self.state = self.program.put(self.state, index, self.program.take(source, index))
        self._read = None

    def take_over(self, parts: Sequence[tuple[Array, State]]) -> None:
        """Sets models to the states that they were trained to apart from the others.

        Args:
            parts: Places of models, and the stack of their states; what comes in it after those is padding.
        """
        whole = [[np.array(value) for value in part] for part in self.program.arrays(self.state)]
        for places, state in parts:
            for values, news in zip(whole, self.program.arrays(state), strict=True):
                for value, new in zip(values, news, strict=True):
                    value[places] = new[: len(places)]
        self.state = self.program.tensors(State(*whole))
        self._read = None

    def keep(self, members: Array) -> None:
        """Drops all models but those at some places."""
        self.flush()
        self.state = self.program.take(self.state, members)
        self.traced = self.program.take(self.traced, members)
        self.fresh = self.program.take(self.fresh, members)
        self._read = None


class Pool:
    """The data of many fits, with equal arrays kept once.

    Args:
        program: The program that trains on them.
        rows: The data of each fit.

    Attributes:
        data: All rows, as tensors.
        offsets: For each part of the data, where the rows of each fit begin in it, shape `(fits,)`.
    """

    def __init__(self, program: Program, rows: Sequence[Samples]) -> None:
        import keras

        columns = list(zip(*[keras.tree.flatten(part) for part in rows], strict=True))
        parts, offsets = [], []
        for column in columns:
            part, offset = (None, None) if column[0] is None else self._once(column)
            parts.append(None if part is None else program.tensor(part))
            offsets.append(offset)
        pack = keras.tree.pack_sequence_as
        self.data = pack(rows[0], parts)
        self.offsets = pack(rows[0], offsets)

    @staticmethod
    def _once(arrays: Sequence[Array]) -> tuple[Array, Array]:
        known: dict[int, int] = {}
        kept: list[tuple[Array, int]] = []
        end, offsets = 0, []
        for array in arrays:
            if id(array) not in known:
                same = (offset for other, offset in kept if _are_same(other, array))
                known[id(array)] = offset = next(same, end)
                if offset == end:
                    kept.append((array, end))
                    end += len(array)
            offsets.append(known[id(array)])
        parts = [array for array, _ in kept]
        return parts[0] if len(parts) == 1 else np.concatenate(parts), np.array(offsets, "int32")


def _are_same(one: Array, other: Array) -> bool:
    """Whether two arrays are equal; a few of their rows tell most of those apart that are not."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    few = slice(None, None, max(1, len(one) // 64))
    if not np.array_equal(one[few], other[few]):
        return False
    # To compare all at once would take a byte for each number.
    return all(np.array_equal(one[n : n + 1024], other[n : n + 1024]) for n in range(0, len(one), 1024))
