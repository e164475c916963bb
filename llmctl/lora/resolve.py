"""From an adapter and its base to what happens to every parameter: PEFT's rules, checked against the base.

The base is its class on the meta device, for names, shapes and kinds of modules, and the names in its files.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from llmctl.core.errors import BadFileError
from llmctl.lora.checkpoint import Adapter, AdapterTensor, LowRank
from llmctl.lora.complete import Present, check_complete
from llmctl.lora.config import AdapterConfig
from llmctl.lora.matrices import DIFFERENT, WRONG_BASE, Matrices, wrong_shape
from llmctl.lora.places import Names
from llmctl.lora.targets import Targets
from llmctl.lora.ties import Ties
from llmctl.lora.updates import Replacement, TokenRows, Update
from llmctl.lora.vocabulary import check_sizes, vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What an adapter does to its base."""

    parameters: Mapping[str, tuple[Update, ...]]
    """By parameter of the model, those that share a weight under one name, in the order of doing."""
    tensors: Mapping[str, tuple[Update, ...]] = field(default_factory=dict)
    """By tensor of the files, for modules that only files have: experts that the model joins."""
    owners: Mapping[str, str] = field(default_factory=dict)
    """Of parameters that share a weight, the name that it has here; one's own for a weight of its own."""
    untied: tuple[str, ...] = ()
    """Parameters that shared a weight and get one of their own."""
    notices: tuple[str, ...] = ()
    """What a user should know."""


def resolve(adapter: Adapter, model: Any, names: Names, tensors: Collection[str]) -> Resolved:
    """What `adapter` does to `model`, whose files hold `tensors`.

    Raises `BadFileError` naming a module that the base lacks, a shape that is not the base's, a rank that the
    configuration does not give, a module that it targets and the adapter lacks, or the other way round.
    """
    return _Resolver(adapter, model, names, tensors).resolve()


class _Resolver:
    def __init__(self, adapter: Adapter, model: Any, names: Names, tensors: Collection[str]) -> None:
        self._adapter, self._model, self._names = adapter, model, names
        self._config: AdapterConfig = adapter.config
        self._targets = Targets(adapter.config)
        self._files = {name.removesuffix(".weight") for name in tensors if name.endswith(".weight")}
        self._parameters = dict(model.named_parameters(remove_duplicate=False))
        self._ties = Ties(self._parameters)
        self._vocabulary = vocabulary(model)
        self._matrices = Matrices(adapter, self._targets)
        self._updates: dict[str, list[Update]] = defaultdict(list)
        self._by_tensor: dict[str, list[Update]] = defaultdict(list)
        self._notices: list[str] = []
        self._changed: set[str] = set()
        """Parameters, by the names that the adapter changes them by."""
        self._covered: set[str] = set()
        """Modules with matrices, by the model's names and by the files'."""

    def resolve(self) -> Resolved:
        # Who shares no weight any more must be known before anything is done to a shared one.
        for name, tensor in sorted(
            self._adapter.full.items(), key=lambda item: item[0] in self._adapter.in_place
        ):
            self._replace(name, tensor)
        self._change()
        if not (self._updates or self._by_tensor):
            raise BadFileError(
                f"{self._adapter.folder} holds no tensors, so it changes nothing",
                hint="copy or download the whole adapter",
            )
        sizes = {name: self._num_rows(name) for name in self._vocabulary}
        self._notices += check_sizes(self._adapter.folder, self._vocabulary, sizes)
        check_complete(
            Present(
                adapter=self._adapter,
                targets=self._targets,
                layers=[*self._linear_modules(), *self._files],
                modules=[path for path, _ in self._model.named_modules()],
                covered=frozenset(self._covered),
                parameters=frozenset(self._changed),
            )
        )
        return Resolved(
            parameters={name: tuple(updates) for name, updates in self._updates.items()},
            tensors={name: tuple(updates) for name, updates in self._by_tensor.items()},
            owners=self._ties.owners(),
            untied=tuple(self._ties.untied),
            notices=tuple(dict.fromkeys([*self._adapter.notices, *self._notices])),
        )

    def _change(self) -> None:
        """Do all but replacing, in the order of the model's modules: that of a weight's changes has a say."""
        order = {name.rpartition(".")[0]: index for index, name in enumerate(self._parameters)}
        last = len(order)

        def place(module: str) -> int:
            return order.get(self._names.module(module) or module, last)

        changes: list[tuple[str, int, LowRank | AdapterTensor]] = [
            *((module, 0, rows) for module, rows in self._adapter.tokens.items()),
            *((module, depth, files) for (module, depth), files in self._adapter.low_rank.items()),
        ]
        for module, depth, change in sorted(changes, key=lambda each: (place(each[0]), *each[:2])):
            if isinstance(change, LowRank):
                self._add(module, depth, change)
            else:
                self._set_rows(module, change)

    def _replace(self, name: str, tensor: AdapterTensor) -> None:
        parameter = self._names.parameter(name)
        if parameter is None:
            raise self._lacks(name, tensor.name)
        module = name.rpartition(".")[0]
        is_saved = self._targets.saves(module) and name not in self._adapter.in_place
        is_bias = name.endswith("bias") and self._config.bias != "none"
        is_table = isinstance(self._module(parameter), nn.Embedding) or parameter.startswith("lm_head.")
        if not (is_saved or is_bias or is_table or name in self._adapter.in_place):
            raise BadFileError(
                f"{self._adapter.folder} holds {tensor.name}, which neither modules_to_save nor bias of its "
                "adapter_config.json names",
                hint=DIFFERENT,
            )
        wanted = tuple(self._parameters[parameter].shape)
        can_be_resized = parameter in self._vocabulary and tensor.shape[1:] == wanted[1:]
        if tensor.shape != wanted and not can_be_resized:
            raise wrong_shape(tensor, parameter, wanted)
        if is_saved and not self._is_saved_for_all(parameter, tensor):
            self._untie(parameter)
        self._put(parameter, Replacement(tensor=tensor))

    def _is_saved_for_all(self, parameter: str, tensor: AdapterTensor) -> bool:
        """Whether the adapter has the same numbers for all that share the weight."""
        others = self._ties.others(parameter)
        saved = self._adapter.full.items() if others else ()
        by_parameter = {self._names.parameter(name): each for name, each in saved}
        found = [by_parameter.get(other) for other in others]
        return all(
            each is not None and each.shape == tensor.shape and torch.equal(each.read(), tensor.read())
            for each in found
        )

    def _untie(self, parameter: str) -> None:
        if parameter in self._ties.untied:
            return
        self._ties.untie(parameter)
        self._notices.append(
            f"{parameter} was trained apart from {', '.join(self._ties.others(parameter))}: they share no "
            "weight any more"
        )

    def _set_rows(self, module: str, rows: AdapterTensor) -> None:
        parameter = self._names.parameter(f"{module}.weight")
        if parameter is None:
            raise self._lacks(module, rows.name)
        tables = self._config.tokens or {}
        path = parameter.removesuffix(".weight")
        ends = [
            end for end in tables if end and (path == end or path.endswith(f".{end}") or module.endswith(end))
        ]
        tokens = tables[max(ends, key=len)] if ends else tables.get("")
        if tokens is None:
            raise BadFileError(
                f"{self._adapter.folder} holds {rows.name}, and trainable_token_indices of its "
                "adapter_config.json names no tokens for it",
                hint=DIFFERENT,
            )
        shape = self._shape(parameter)
        if rows.shape != (len(tokens), shape[1]):
            raise wrong_shape(rows, parameter, (len(tokens), shape[1]))
        if max(tokens) >= shape[0]:
            raise BadFileError(
                f"{self._adapter.folder} trained the token {max(tokens)}, and {parameter} of the base has "
                f"{shape[0]} rows",
                hint=WRONG_BASE,
            )
        self._put(parameter, TokenRows(shape=shape, tokens=tokens, rows=rows))
        # Rows of the table are trained for the head as well, but not the other way round.
        if self._module(parameter) is not self._model.get_input_embeddings():
            self._tell_tied(parameter)

    def _add(self, module: str, depth: int, files: LowRank) -> None:
        path = self._names.module(module)
        if path is None:
            self._add_to_file(module, files)
            return
        self._covered.add(path)
        parameter = self._wrapped_parameter(module, path, depth)
        if parameter is not None:
            self._add_to_parameter(parameter, files)
            return
        if depth:
            raise BadFileError(
                f"{self._adapter.folder} holds {files.a.name}, and its target_parameters name fewer "
                f"parameters of {path}",
                hint=DIFFERENT,
            )
        self._check_targeted(module, path, files)
        self._add_to_layer(module, f"{path}.weight", self._module(f"{path}.weight"), files)

    def _wrapped_parameter(self, module: str, path: str, depth: int) -> str | None:
        """The parameter that PEFT wrapped at that depth: the last one of the module on the outside."""
        own = [
            f"{path}.{name}" for name, _ in self._model.get_submodule(path).named_parameters(recurse=False)
        ]
        spelled = {name: name.replace(path, module, 1) for name in own}
        wrapped = [
            name
            for name in own
            if self._targets.has_parameter(name) or self._targets.has_parameter(spelled[name])
        ]
        return wrapped[-1 - depth] if depth < len(wrapped) else None

    def _check_targeted(self, module: str, path: str, files: LowRank) -> None:
        # With ensure_weight_tying, PEFT adds the one that shares the weight of the one that is named.
        shared = self._ties.others(f"{path}.weight") if self._config.keeps_tied else []
        spelled = (module, path, *(name.removesuffix(".weight") for name in shared))
        if not any(self._targets.has_module(each) for each in spelled):
            raise BadFileError(
                f"{self._adapter.folder} holds {files.a.name}, and its adapter_config.json does not target "
                f"{module}",
                hint=DIFFERENT,
            )

    def _add_to_layer(self, module: str, parameter: str, layer: nn.Module, files: LowRank) -> None:
        is_table = isinstance(layer, nn.Embedding)
        if files.is_table is not is_table:
            kind = "a table of tokens" if files.is_table else "a layer"
            raise BadFileError(
                f"{files.a.name} of the adapter is for {kind}, and {parameter} of the base is none",
                hint=WRONG_BASE,
            )
        if len(self._parameters[parameter].shape) != 2:
            raise BadFileError(
                f"the adapter changes {parameter}, which is no matrix ({type(layer).__name__}): llmctl does "
                "not merge that",
                hint="merge it with peft's merge_and_unload",
            )
        if self._is_done(module, parameter, files):
            self._changed.add(parameter)
            return
        is_transposed = is_table or isinstance(layer, Conv1D)
        shape = self._shape(parameter)
        update = self._matrices.of_weight(module, parameter, shape, files, is_transposed=is_transposed)
        self._put(parameter, update)
        if not self._config.keeps_tied:
            self._tell_tied(parameter)
        if files.bias is not None:
            self._add_bias(module, parameter, files.bias)

    def _is_done(self, module: str, parameter: str, files: LowRank) -> bool:
        """Whether the change is that of the table which shares the weight: once is what was trained.

        Raises `BadFileError` for two changes that ensure_weight_tying says are one.
        """
        if not self._config.keeps_tied or files.is_table:
            return False
        for (table, _), other in self._adapter.low_rank.items():
            path = self._names.parameter(f"{table}.weight") if other.is_table else None
            if path is None or path not in self._ties.shared_with(parameter):
                continue
            is_same = (
                torch.equal(files.a.read(), other.b.read().T)
                and torch.equal(files.b.read(), other.a.read().T)
                and self._targets.factor(module) == self._targets.factor(table)
                and not self._config.has_magnitudes
            )
            if not is_same:
                raise BadFileError(
                    f"{self._adapter.folder} has ensure_weight_tying=true and changes {parameter} otherwise "
                    f"than {path}, so no one weight stands for both",
                    hint="use it unmerged, with peft; or train it again without use_dora and with one rank "
                    "and alpha for both",
                )
            return True
        return False

    def _tell_tied(self, parameter: str) -> None:
        if others := self._ties.shared_with(parameter):
            self._notices.append(
                f"{parameter} shares its weight with {', '.join(others)}: the adapter was trained for the "
                "first alone, and merged it changes both, as peft's merge does"
            )

    def _add_bias(self, module: str, parameter: str, bias: AdapterTensor) -> None:
        name = f"{parameter.removesuffix('.weight')}.bias"
        if name not in self._parameters:
            raise BadFileError(
                f"{bias.name} of the adapter is a bias (lora_bias), and {name.removesuffix('.bias')} of the "
                "base has none to add it to",
                hint="use it unmerged, with peft",
            )
        shape = tuple(self._parameters[name].shape)
        self._put(name, self._matrices.of_bias(module, bias, shape, name))

    def _add_to_parameter(self, parameter: str, files: LowRank) -> None:
        """`target_parameters`."""
        shape = tuple(self._parameters[parameter].shape)
        if len(shape) == 2:
            update = self._matrices.of_weight(parameter, parameter, shape, files, is_transposed=False)
        else:
            is_transposed = bool(getattr(self._module(parameter), "is_transposed", False))
            update = self._matrices.of_experts(parameter, shape, files, is_transposed=is_transposed)
        self._put(parameter, update)
        self._tell_tied(parameter)

    def _add_to_file(self, module: str, files: LowRank) -> None:
        """A layer that the model's class does not have any more, and the files still do."""
        if module not in self._files or files.is_table or files.bias is not None:
            raise self._lacks(module, files.a.name)
        self._check_targeted(module, module, files)
        self._covered.add(module)
        update = self._matrices.of_file(module, files, is_transposed=self._config.is_transposed)
        self._by_tensor[f"{module}.weight"].append(update)

    def _put(self, parameter: str, update: Update) -> None:
        self._changed.add(parameter)
        updates = self._updates[self._ties.owner(parameter)]
        if isinstance(update, Replacement) and any(isinstance(each, Replacement) for each in updates):
            # Saved once for each name of one weight.
            return
        updates.append(update)

    def _shape(self, parameter: str) -> tuple[int, int]:
        """Of a matrix, as it is when it has been replaced."""
        return self._num_rows(parameter), self._parameters[parameter].shape[1]

    def _num_rows(self, parameter: str) -> int:
        done = self._updates.get(self._ties.owner(parameter))
        return int(done[-1].shape[0] if done else self._parameters[parameter].shape[0])

    def _module(self, parameter: str) -> nn.Module:
        module: nn.Module = self._model.get_submodule(parameter.rpartition(".")[0])
        return module

    def _lacks(self, module: str, tensor: str) -> BadFileError:
        return BadFileError(
            f"{self._adapter.folder} holds {tensor}, and the base has no {module}", hint=WRONG_BASE
        )

    def _linear_modules(self) -> list[str]:
        kinds = (nn.Linear, Conv1D, nn.Embedding)
        return [path for path, module in self._model.named_modules() if isinstance(module, kinds)]
