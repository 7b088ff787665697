from collections.abc import Mapping

from bridge.server.validation import turns
from bridge.server.validation.turns import Party, TurnQueue

HONEST, GREEDY = Party("honest", "payments"), Party("greedy", "web")


def queue(max_waiting: int = 1000, **options: float) -> TurnQueue[str]:
    return TurnQueue(max_waiting=max_waiting, **options)  # type: ignore[arg-type]


def put(waiting: TurnQueue[str], party: Party, *files: str) -> None:
    for file in files:
        assert waiting.put(party, file) is None


def serve(waiting: TurnQueue[str], costs: Mapping[str, float], number: int | None = None) -> list[str]:
    """Serve files one after the other, at a cost by caller; gives their order."""
    order: list[str] = []
    while (number is None or len(order) < number) and (turn := waiting.take()):
        order.append(turn.item)
        waiting.charge(turn, costs[turn.party.caller])
    return order


def test_a_file_waits_for_one_file_of_a_caller_that_has_sent_hundreds():
    waiting = queue()
    put(waiting, GREEDY, *(f"greedy {number}" for number in range(500)))
    assert serve(waiting, {"greedy": 0.4}, 100)[-1] == "greedy 99"
    at_work = waiting.take()
    put(waiting, HONEST, "honest 1")
    waiting.charge(at_work, 0.4)
    assert serve(waiting, {"greedy": 0.4, "honest": 0.01}, 1) == ["honest 1"]


def test_many_cheap_files_go_before_a_costly_one_until_they_have_cost_as_much():
    waiting = queue()
    put(waiting, GREEDY, "greedy 1", "greedy 2", "greedy 3")
    put(waiting, HONEST, *(f"honest {number}" for number in range(50)))
    order = serve(waiting, {"greedy": 0.4, "honest": 0.02})
    assert order[0] == "greedy 1"
    assert 18 <= order.index("greedy 2") - order.index("greedy 1") <= 24
    assert 18 <= order.index("greedy 3") - order.index("greedy 2") <= 24


def test_files_of_one_cost_take_turns():
    waiting = queue()
    put(waiting, GREEDY, "greedy 1", "greedy 2", "greedy 3")
    put(waiting, HONEST, "honest 1", "honest 2", "honest 3")
    order = serve(waiting, {"greedy": 0.02, "honest": 0.02})
    assert [file.split()[1] for file in order] == ["1", "1", "2", "2", "3", "3"]


def test_the_routes_of_one_caller_take_turns_too():
    waiting = queue()
    put(waiting, Party("ci", "web"), *(f"web {number}" for number in range(100)))
    assert serve(waiting, {"ci": 0.4}, 10)[-1] == "web 9"
    put(waiting, Party("ci", "payments"), "payments 1")
    assert serve(waiting, {"ci": 0.4}, 1) == ["payments 1"]


def test_more_routes_give_a_caller_no_more_turns():
    waiting = queue()
    for route in range(50):
        put(waiting, Party("greedy", f"route {route}"), f"greedy {route}")
    put(waiting, HONEST, "honest 1", "honest 2")
    order = serve(waiting, {"greedy": 0.02, "honest": 0.02})
    assert order.index("honest 1") <= 1
    assert order.index("honest 2") <= 3


def test_a_caller_saves_no_turns_while_it_is_away():
    waiting = queue()
    put(waiting, HONEST, *(f"honest {number}" for number in range(300)))
    serve(waiting, {"honest": 0.02}, 200)
    put(waiting, GREEDY, *(f"greedy {number}" for number in range(300)))
    order = serve(waiting, {"greedy": 0.02, "honest": 0.02}, 10)
    assert 4 <= sum(file.startswith("honest") for file in order) <= 6


def test_a_full_queue_costs_the_caller_with_the_most_files_its_newest():
    waiting = queue(max_waiting=3)
    put(waiting, GREEDY, "greedy 1", "greedy 2", "greedy 3")
    assert waiting.put(GREEDY, "greedy 4") == "greedy 4"
    assert waiting.put(HONEST, "honest 1") == "greedy 3"
    assert waiting.put(HONEST, "honest 2") == "honest 2"  # a tie
    assert len(waiting) == 3


def test_a_full_queue_costs_the_route_with_the_most_files_of_a_caller():
    waiting = queue(max_waiting=3)
    put(waiting, Party("ci", "web"), "web 1", "web 2", "web 3")
    assert waiting.put(Party("ci", "payments"), "payments 1") == "web 3"


def test_a_costly_caller_leaves_a_place_to_others():
    waiting = queue(costly_seconds=0.25, costly_places=1)
    put(waiting, GREEDY, *(f"greedy {number}" for number in range(9)))
    serve(waiting, {"greedy": 1.4}, 1)
    at_work = waiting.take()
    assert at_work is not None
    assert waiting.take() is None
    put(waiting, HONEST, "honest 1")
    assert serve(waiting, {"honest": 0.1}) == ["honest 1"]
    waiting.charge(at_work, 1.4)
    assert serve(waiting, {"greedy": 1.4}, 1) == ["greedy 2"]


def test_a_cheap_caller_may_have_all_places():
    waiting = queue(costly_seconds=0.25, costly_places=1)
    put(waiting, HONEST, "honest 0", "honest 1", "honest 2", "honest 3")
    serve(waiting, {"honest": 0.1}, 1)
    assert [waiting.take().item for _ in range(3)] == ["honest 1", "honest 2", "honest 3"]


def test_a_caller_of_which_nothing_has_run_leaves_a_place_to_others():
    waiting = queue(costly_seconds=0.25, costly_places=1)
    put(waiting, GREEDY, *(f"greedy {number}" for number in range(9)))
    first = waiting.take()
    assert first is not None
    assert waiting.take() is None
    put(waiting, HONEST, "honest 1")
    assert serve(waiting, {"honest": 0.1}) == ["honest 1"]
    waiting.charge(first, None)  # it did not run, so nothing is known
    second = waiting.take()
    assert second is not None
    assert waiting.take() is None
    waiting.charge(second, 0.1)
    assert [waiting.take().item for _ in range(2)] == ["greedy 2", "greedy 3"]


def test_what_a_file_will_cost_is_expected_from_the_most_costly_one_before_which_fades():
    waiting = queue()
    put(waiting, GREEDY, *(f"greedy {number}" for number in range(100)))
    assert waiting.take(max_expected=turns.UNKNOWN_SECONDS / 2) is None
    serve(waiting, {"greedy": 0.4}, 1)
    served = 0
    while waiting.take(max_expected=0.02) is None:
        served += len(serve(waiting, {"greedy": 0.001}, 1))
    assert 20 <= served <= 40


def test_a_file_that_did_not_run_costs_nothing():
    waiting = queue()
    put(waiting, GREEDY, "greedy 1", "greedy 2")
    put(waiting, HONEST, "honest 1")
    waiting.charge(waiting.take(), None)
    assert serve(waiting, {"greedy": 0.02, "honest": 0.02}, 1) == ["greedy 2"]


def test_a_removed_file_has_no_turn():
    waiting = queue()
    put(waiting, GREEDY, "greedy 1", "greedy 2")
    waiting.discard(GREEDY, "greedy 1")
    waiting.discard(GREEDY, "greedy 1")
    waiting.discard(HONEST, "honest 1")
    assert waiting.waiting() == ["greedy 2"]
    assert serve(waiting, {"greedy": 0.02}) == ["greedy 2"]


def test_a_queue_forgets_callers_without_files(monkeypatch):
    monkeypatch.setattr(turns, "MAX_KNOWN", 10)
    waiting = queue()
    for number in range(50):
        put(waiting, Party(f"caller {number}"), "file")
        waiting.charge(waiting.take(), 0.4)
    assert len(waiting._callers) <= 11
