"""What a backend of Keras does for a program; each has a class of its own in a file beside this one."""

from __future__ import annotations

import abc
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from kerastoolkit.training._state import Array, Samples, State, Tensor

# Tracing goes through the template's own layers and Keras' global scopes. What has been traced or compiled needs
# neither: it is called without the lock, so that threads that predict or train do not wait for each other.
TRACING_LOCK = threading.RLock()

# A step of training or of evaluation: from a state, the traced hyper-parameters and a batch to the next state.
Step = Callable[[State, dict[int, Tensor], Samples], State]

# Steps as one program: from a state, the traced hyper-parameters, the rows, their indices batch by batch and their
# offsets to the state after them and the results of the metrics by name.
CompiledSteps = Callable[[State, dict[int, Tensor], Samples, Any, Samples], tuple[State, dict[str, Tensor]]]

# From trainable and other weights and rows to the output of a model.
Predict = Callable[[list[Tensor], list[Tensor], Any], Any]


class Steps(NamedTuple):
    """Steps of training or of evaluation that are to become one program.

    Attributes:
        step: One step of one model.
        results: From a state to the results of the metrics.
        example: A state of the shapes that one model has.
        data: Rows of the form that the program will get.
        traced: The slots of the hyper-parameters that it will get as tensors.
        stacked: Whether it is for many models.
        light: Whether a step computes so little that it is the start of each operation which takes the time.
    """

    step: Step
    results: Callable[[State], dict[str, Tensor]]
    example: State
    data: Samples
    traced: Sequence[int]
    stacked: bool
    light: bool


class ArrayBackend(abc.ABC):
    """Arrays, and stacks of them with a leading axis of models.

    Attributes:
        steps_a_call: Steps that one call of a program should begin with; it cannot be interrupted.
        compiles_each_size: Whether another number of models is compiled anew.
    """

    steps_a_call: int
    compiles_each_size: bool

    @abc.abstractmethod
    def tensor(self, value: Array) -> Tensor:
        """An array as a tensor."""

    @abc.abstractmethod
    def take(self, value: Tensor, members: Array) -> Tensor:
        """Some models of a stack."""

    @abc.abstractmethod
    def put(self, value: Tensor, members: Array, part: Tensor) -> Tensor:
        """A stack with some models replaced."""

    def cut(self, value: Tensor, first: int, end: int) -> Sequence[Tensor]:
        """A stack cut in three: the models before `first`, those before `end`, and the others."""
        return value[:first], value[first:end], value[end:]

    def joined(self, values: Sequence[Tensor]) -> Tensor:
        """Stacks joined to one; not asked of a backend with `compiles_each_size`."""
        raise NotImplementedError


class Backend(ArrayBackend):
    """All that a program needs of a backend of Keras.

    Attributes:
        stacks_loops_slowly: Whether recurrent layers of many models take much longer to trace than those of one.
        has_xla: Whether small steps can be left to XLA, beside programs that it does not compile.
    """

    stacks_loops_slowly: bool = False
    has_xla: bool = False

    def seconds_of_a_step(self, n_models: int, multiplications: int, *, stacked: bool, light: bool) -> float:
        """Approximate time of a step on a CPU without XLA, in seconds; NaN if unknown.

        Args:
            n_models: The number of models.
            multiplications: Those of one model in the forward pass.
            stacked: Whether the models are trained together, or one by one.
            light: Whether starting the operations takes most of the time.
        """
        return math.nan

    @abc.abstractmethod
    def convert(self, value: Any, dtype: Any) -> Tensor:
        """A number or a tensor as a tensor of a dtype; None for single precision."""

    @abc.abstractmethod
    def gradients(
        self, loss_of: Callable[[list[Tensor]], tuple[Tensor, Any]], trainable: list[Tensor]
    ) -> tuple[list[Tensor], Any]:
        """Gradients of a loss with respect to weights, and what else the function returns."""

    @abc.abstractmethod
    def compile(self, steps: Steps) -> CompiledSteps:
        """Makes a program that takes models through batches; it keeps neither the example nor the data."""

    @abc.abstractmethod
    def predict(self, forward: Predict, trainable: list[Tensor], others: list[Tensor], x: Any) -> Predict:
        """Makes a program of the output of a model, for weights and rows of these forms."""

    @abc.abstractmethod
    def for_each(
        self, function: Callable[[Any], list[Tensor]], example: Array
    ) -> Callable[[Array], Sequence[Sequence[Array]]] | None:
        """Makes one program of a function of an array, for many arrays; None where nothing is compiled."""

    @abc.abstractmethod
    def is_of_the_program(self, error: Exception) -> bool:
        """Whether an error of a first call says something of the program, and not of the data or the machine."""

    @abc.abstractmethod
    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an error says that there was not enough memory."""

    def dropout(self, inputs: Tensor, rate: Tensor, seed: Tensor) -> Tensor:
        """What Keras' dropout makes of inputs, for a rate that is a tensor; no program of torch has dropout."""
        raise NotImplementedError

    def by_xla(self, program: CompiledSteps, *, stacked: bool) -> Callable[..., tuple[State, Any]] | None:
        """A program compiled by XLA, as a function of the models of a call and the program's own arguments.

        None if that cannot be had.
        """
        return None

    def epochs_by_xla(self, program: CompiledSteps, size: int, n_rows: int) -> Callable[..., tuple[State, Any]]:
        """Whole epochs of a stacked program, compiled by XLA; only asked of a backend with `has_xla`."""
        raise NotImplementedError

    def release_memory(self) -> None:
        """Gives back what is kept of a program that was dropped; most backends keep nothing."""
        return None
