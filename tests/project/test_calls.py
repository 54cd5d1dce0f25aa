"""Calls that must have certain arguments: clients of Kafka, and what reads models and pickles."""

import ast
from collections.abc import Iterator

import pytest

from tests.paths import ROOT

pytestmark = pytest.mark.xdist_group("calls")  # the sources are parsed once

CLIENTS = ("AIOKafkaConsumer", "AIOKafkaProducer", "AIOKafkaAdminClient", "AIOKafkaClient")
OTHER_LIBRARIES = {"confluent_kafka", "kafka", "pykafka", "quixstreams"}
ARGUMENTS = "client_arguments"
"""The function that returns TLS, SASL and addresses as the settings say."""

UNPICKLING = {"indexer/shards.py", "tracker/stream/aside.py"}
"""Modules that read pickles: those of processes that they have started themselves."""

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class Calls:
    """The syntax tree of a module: its nodes, the node around each, and the calls by name."""

    def __init__(self, text: str) -> None:
        self.nodes = list(ast.walk(ast.parse(text)))
        self.around = {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}
        self._calls: dict[str, list[ast.Call]] = {}
        for node in self.nodes:
            if isinstance(node, ast.Call):
                self._calls.setdefault(name_of(node.func), []).append(node)

    def to(self, name: str) -> list[ast.Call]:
        """Return the calls of a function or method by its name."""
        return self._calls.get(name, [])

    def imported(self) -> set[str]:
        """Return the packages that are imported, without what is in them."""
        found = set()
        for node in self.nodes:
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add((node.module or "").partition(".")[0])
        return found

    def functions_around(self, node: ast.AST) -> Iterator[Function]:
        """Yield the functions that a node is in, from the innermost to the outermost."""
        while node in self.around:
            node = self.around[node]
            if isinstance(node, Function):
                yield node

    def is_type(self, node: ast.AST) -> bool:
        """Return whether a name stands in an annotation or between brackets, as types do."""
        while (outer := self.around.get(node)) is not None:
            is_argument = isinstance(outer, ast.arg | ast.AnnAssign) and outer.annotation is node
            is_returned = isinstance(outer, Function) and getattr(outer, "returns", None) is node
            if is_argument or is_returned or isinstance(outer, ast.Subscript):
                return outer.slice is node if isinstance(outer, ast.Subscript) else True
            node = outer
        return False


def name_of(node: ast.AST) -> str:
    """Return the last part of a name: `b` of `a.b`; empty if the node is no name."""
    return getattr(node, "id", "") or getattr(node, "attr", "")


def keywords(call: ast.Call) -> dict[str | None, str]:
    """Return the keyword arguments of a call, as source text; `**` is None."""
    return {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}


def passes_arguments(calls: Calls, call: ast.Call) -> bool:
    """Return whether a call passes `**client_arguments(...)`, or a dictionary that has them."""
    return any(
        keyword.arg is None and has_arguments(calls, keyword.value, call)
        for keyword in call.keywords
    )


def has_arguments(calls: Calls, value: ast.AST, call: ast.Call) -> bool:
    """Return whether a dictionary, as an expression of a call, has the arguments of the settings.

    A name has them if all that its function gives it has them, or, if it stands for the keyword
    arguments of that function, if all that call the function pass them.
    """
    if isinstance(value, ast.Call):
        return name_of(value.func) == ARGUMENTS
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr):
        return any(has_arguments(calls, side, call) for side in (value.left, value.right))
    if isinstance(value, ast.Dict):
        pairs = zip(value.keys, value.values, strict=True)
        return any(has_arguments(calls, one, call) for key, one in pairs if key is None)
    if not isinstance(value, ast.Name):
        return False
    for function in calls.functions_around(call):
        given = [
            node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign)
            and node.value is not None
            and value.id in map(name_of, getattr(node, "targets", [getattr(node, "target", None)]))
        ]
        if given:
            return all(has_arguments(calls, one, call) for one in given)
        if function.args.kwarg is not None and function.args.kwarg.arg == value.id:
            name = getattr(function, "name", "")
            callers = calls.to(name) if name.startswith("_") else []
            return bool(callers) and all(passes_arguments(calls, one) for one in callers)
    return False


def clients_without(calls: Calls) -> list[int]:
    """Return the lines where a Kafka client is, or may be, made without the settings' arguments."""
    wrong = []
    for node in calls.nodes:
        if isinstance(node, ast.alias) and node.asname and node.name.endswith(CLIENTS):
            wrong.append(node.lineno)  # its calls would not be found
        if not isinstance(node, ast.Name | ast.Attribute) or name_of(node) not in CLIENTS:
            continue
        outer = calls.around[node]
        if isinstance(outer, ast.Call) and outer.func is node:
            if not passes_arguments(calls, outer):
                wrong.append(outer.lineno)
        elif not calls.is_type(node):  # handed on, or a base class
            wrong.append(node.lineno)
    return wrong


@pytest.fixture(scope="module")
def modules() -> dict[str, Calls]:
    """The modules of both packages, by their paths."""
    paths = sorted(path for room in ("tracker", "indexer") for path in (ROOT / room).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): Calls(path.read_text()) for path in paths}


def test_every_kafka_client_has_the_addresses_and_credentials_of_the_settings(
    modules: dict[str, Calls],
) -> None:
    assert {name: lines for name, one in modules.items() if (lines := clients_without(one))} == {}
    made = [call for one in modules.values() for name in CLIENTS for call in one.to(name)]
    assert len(made) > 7


def test_no_other_library_of_kafka_clients_is_used(modules: dict[str, Calls]) -> None:
    assert [name for name, one in modules.items() if one.imported() & OTHER_LIBRARIES] == []


def test_faust_has_the_addresses_and_credentials_of_the_settings(modules: dict[str, Calls]) -> None:
    (call,) = modules["tracker/worker/app.py"].to("TrackerApp")
    given = keywords(call)
    assert given["broker_credentials"] == "_credentials(settings)"
    assert "settings.bootstrap" in given["broker"]


@pytest.mark.parametrize(
    "code",
    [
        "AIOKafkaProducer(bootstrap_servers=settings.brokers, linger_ms=5)",
        "aiokafka.AIOKafkaProducer(bootstrap_servers=settings.bootstrap)",
        "AIOKafkaConsumer(**arguments)",
        "arguments = {'a': 1}\n    AIOKafkaConsumer(**arguments)",
        "a = client_arguments(s)\n    if x:\n        a = {}\n    AIOKafkaAdminClient(**a)",
        "AIOKafkaClient(**other_arguments(settings))",
        "partial(AIOKafkaProducer, **client_arguments(settings))",
        "from aiokafka import AIOKafkaProducer as Producer\n    Producer()",
        "class Mine(AIOKafkaConsumer): pass",
        "def _new(**more): return AIOKafkaClient(**more)\n    _new(**client_arguments(s)); _new()",
        "def _new(**more): return AIOKafkaClient(**more)",
        "def new(**more): return AIOKafkaClient(**more)\n    new(**client_arguments(s))",
    ],
)
def test_a_client_without_them_is_found(code: str) -> None:
    assert clients_without(Calls(f"def make(settings):\n    {code}\n")) != []


@pytest.mark.parametrize(
    "code",
    [
        "AIOKafkaProducer(linger_ms=5, **client_arguments(settings))",
        "a = {**client_arguments(settings), 'acks': 'all', **a}\n    AIOKafkaConsumer(**a)",
        "a = client_arguments(s) | {}\n    def new() -> AIOKafkaClient: return AIOKafkaClient(**a)",
        "def _new(**more): return AIOKafkaClient(**more)\n    _new(**client_arguments(s))",
        "seen: list[AIOKafkaClient] = []",
    ],
)
def test_a_client_with_them_is_not_found(code: str) -> None:
    assert clients_without(Calls(f"def make(settings):\n    {code}\n")) == []


def test_no_model_is_read_with_code_of_its_own_or_from_other_files_than_safetensors(
    modules: dict[str, Calls],
) -> None:
    read = [call for one in modules.values() for call in one.to("from_pretrained")]
    models = [call for call in read if "Model" in ast.unparse(call.func)]
    assert len(read) > len(models) > 0
    assert [ast.unparse(c) for c in read if keywords(c).get("trust_remote_code") != "False"] == []
    assert [ast.unparse(c) for c in models if keywords(c).get("use_safetensors") != "True"] == []


def test_no_file_is_unpickled(modules: dict[str, Calls]) -> None:
    assert {name for name, one in modules.items() if "pickle" in one.imported()} == UNPICKLING
    loads = [call for one in modules.values() for call in one.to("load")]
    assert [ast.unparse(call) for call in loads if "allow_pickle" in keywords(call)] == []
    functions = {ast.unparse(call.func) for call in loads}
    assert functions & {"torch.load", "joblib.load"} == set()
