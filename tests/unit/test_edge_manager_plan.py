"""edge-manager: what is to be done, decided from what is known; and what is known, from what is observed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from edge_manager import effects, plan
from edge_manager.known import TRIES, Backoff, Known, Loading, Model, Rules, Tried
from edge_manager.model_server import State
from edge_manager.observations import Answered, Brought, Holdings, Looked, Observation, Reconsidered
from edge_manager.records import Refusal
from edge_manager.versions import Inspection, Offer, Offered, Ref, Refused, Waiting

TEA = "tea"
RULES = Rules("edge1", load_seconds=120.0, keep_versions=1)
AVAILABLE, LOADING, START = State("AVAILABLE"), State("LOADING"), State("START")
LOST, BROKEN = State("END", "UNAVAILABLE"), State("END", "DATA_LOSS")


def offered(version: int, model: str = TEA, **facts: Any) -> Offered:
    return Offered(Ref(model, version), (), **{"fingerprint": f"of {version}", "is_settled": True, **facts})


def offers(*versions: int) -> Offer:
    return Offer(versions, tuple(offered(version) for version in versions))


def holding(*versions: int, **facts: Any) -> Model:
    return Model(held={"bucket": dict.fromkeys(versions, True)}, **facts)


def refusal(version: int, *, may_pass: bool = False) -> dict[Ref, Refusal]:
    return {Ref(TEA, version): Refusal(f"of {version}", "load", "it failed", "then", may_pass)}


def hidden(version: int, *, again: float) -> Model:
    return Model(backoffs={version: Backoff(f"of {version}", 1, again)})


def knowing(model: Model, **facts: Any) -> Known:
    return Known(models={TEA: model}, **facts)


# --- what is brought ----------------------------------------------------------------------------


def tried(version: int = 3, inspection: Inspection | None = None, **facts: Any) -> dict[int, Tried]:
    return {version: Tried(offered(version), inspection, **facts)}


WAITS = Waiting("a file is missing")
FAILED: dict[str, Any] = {"error": "the link is cut", "again": 60.0}


@pytest.mark.parametrize(
    ("model", "facts", "wanted"),
    [
        (Model(), {}, [3]),
        (holding(2), {}, [3]),
        (holding(3), {}, []),
        (Model(bringing=3), {}, []),
        (Model(tried=tried(inspection=WAITS)), {}, [2]),
        (Model(tried={3: Tried(offered(3, fingerprint="of before"), WAITS)}), {}, [3]),
        (Model(tried={3: Tried(offered(3, is_settled=False), WAITS)}), {}, [3]),
        (Model(tried=tried(failures=1, **FAILED)), {}, []),
        (Model(tried=tried(failures=TRIES, **FAILED)), {}, [2]),
        (Model(tried=tried(failures=TRIES, error="the link is cut", again=10.0)), {}, [3]),
        (Model(tried=tried(inspection=Refused("content", "a byte is wrong"))), {}, [2]),
        (Model(), {"refused": refusal(3)}, [2]),
        (Model(), {"refused": {Ref(TEA, 3): Refusal("of before", "load", "it failed", "then")}}, [3]),
        (hidden(3, again=60.0), {"refused": refusal(3)}, [2]),
        (hidden(3, again=60.0), {"refused": refusal(3, may_pass=True)}, [2]),
        (hidden(3, again=10.0), {"refused": refusal(3, may_pass=True)}, [3]),
        (Model(), {"refused": refusal(3, may_pass=True)}, [3]),
        (Model(), {"central_fault": "the link is cut"}, []),
    ],
    ids=[
        "the newest",
        "newer than what is here",
        "it is here",
        "it is on its way",
        "it is waited for",
        "it was waited for, and has changed",
        "it was waited for, and is at rest now",
        "it failed just now",
        "it failed too often, just now",
        "it failed too often, and is due",
        "it was found to be wrong",
        "it is refused",
        "it was refused, and has changed",
        "it is hidden for a while, and refused since",
        "it is hidden for a while",
        "it was hidden, and is due",
        "it was hidden in an earlier life",
        "central is away",
    ],
)  # fmt: skip
def test_the_newest_version_that_may_be_there_is_brought(
    model: Model, facts: dict[str, Any], wanted: list[int]
) -> None:
    known = knowing(replace(model, offer=offers(3, 2)), **facts)
    assert [one.ref.version for one in plan.bring(known, now=30.0)] == wanted


@pytest.mark.parametrize("busy", range(plan.BROUGHT_AT_ONCE + 1))
def test_of_all_models_so_many_at_once_have_a_version_on_its_way(busy: int) -> None:
    models = {
        f"m{n}": Model(offer=Offer((1,), (offered(1, f"m{n}"),)), bringing=int(n < busy)) for n in range(6)
    }
    begun = plan.bring(Known(models=models), now=0.0)
    assert len(begun) == plan.BROUGHT_AT_ONCE - busy
    assert all(not models[one.ref.model].bringing for one in begun)


# --- what is done with what is here -------------------------------------------------------------


def confirmable() -> Iterator[Known]:
    """Every way in which three versions may stand, of which two are at the edge."""
    answers = (None, {}, *({1: old, 2: new} for old in (AVAILABLE, LOST) for new in STATES))
    for states, served, copied, listed, hidden, since in itertools.product(
        answers, (False, True), (False, True), (False, True), (False, True), (None, 0.0)
    ):
        yield knowing(
            holding(
                1,
                2,
                offer=offers(3, 2) if listed else Offer(),
                states=states,
                loading=Loading(2, "of 2" if copied else None, since=since, unknown_since=since),
                backoffs={3: Backoff("of 3", 1, 900.0)} if hidden else {},
            ),
            served={Ref(TEA, 1): datetime.now(UTC)} | ({Ref(TEA, 2): datetime.now(UTC)} if served else {}),
            refused=refusal(3, may_pass=True) if hidden else {},
        )


STATES = (AVAILABLE, LOADING, START, LOST, BROKEN)


def test_nothing_is_done_that_harms_however_things_stand() -> None:
    seen: set[type] = set()
    for known in confirmable():
        model, (old, new) = known.models[TEA], (Ref(TEA, 1), Ref(TEA, 2))
        done = list(plan.confirm(known, TEA, 600.0, RULES))
        seen.update(type(effect) for effect in done)
        taken = {e.ref for e in done if isinstance(e, effects.Refuse | effects.Hide | effects.Remove)}
        states = model.states or {}
        answers = {Ref(TEA, version) for version, state in states.items() if state.is_available}
        assert not taken & answers, "what answers stays"
        assert old not in taken or new in answers, "the version before goes only once the new one answers"
        assert new not in taken or new not in known.served, "what has served here is never refused"
        assert new not in taken or model.loading.fingerprint or model.offer.offered, (
            "nor what could not come back"
        )
        assert states or not taken, "a server that is away, or knows nothing, has nobody removed"
        assert (effects.Announce(new) in done) == (new in answers)
        assert list(plan.confirm(known, TEA, 600.0, RULES)) == done, "it is decided by what is known alone"
    names = {kind.__name__ for kind in seen}
    assert names == {"Announce", "Diagnose", "Hide", "Refuse", "RememberServed", "Remove"}


@pytest.mark.parametrize(
    ("state", "tries", "since", "wanted"),
    [
        (LOADING, 0, 0.0, None),
        (LOADING, 0, -120.0, effects.Hide),
        (LOADING, 1, -120.0, None),
        (LOADING, 1, -240.0, effects.Hide),
        (LOST, 0, 0.0, effects.Hide),
        (LOST, 9, 0.0, effects.Hide),
        (State("END", "NOT_FOUND"), 0, 0.0, effects.Hide),
        (State("END", "NOT_FOUND"), 1, 0.0, effects.Refuse),
        (BROKEN, 0, 0.0, effects.Refuse),
    ],
)
def test_what_does_not_load_is_hidden_ever_longer_or_refused(
    state: State, tries: int, since: float, wanted: type | None
) -> None:
    backoffs = {1: Backoff("of 1", tries, 0.0)} if tries else {}
    model = holding(1, states={1: state}, loading=Loading(1, "of 1", since=since), backoffs=backoffs)
    done = list(plan.confirm(knowing(model), TEA, 0.0, RULES))
    assert [type(effect) for effect in done] == ([wanted] if wanted else [])
    pauses = [effect.pause for effect in done if isinstance(effect, effects.Hide)]
    assert pauses in ([], [min(plan.FIRST_PAUSE * 2**tries, plan.LONGEST_PAUSE)])


def test_a_failure_of_before_the_version_was_there_is_not_held_against_it() -> None:
    model = holding(1, states={1: BROKEN}, loading=Loading(1, "of 1", before=BROKEN, since=0.0))
    assert list(plan.confirm(knowing(model), TEA, 0.0, RULES)) == []


def test_a_version_that_somebody_put_here_and_that_cannot_be_loaded_is_told() -> None:
    broken = replace(BROKEN, message="no graph")
    model = holding(1, 2, states={2: broken}, loading=Loading(2))
    assert list(plan.confirm(knowing(model), TEA, 0.0, RULES)) == [], "central could not bring it back"
    assert model.trouble == "the model server could not load version 2, the newest here: no graph"
    assert replace(model, loading=Loading(2, before=broken)).trouble is None, "that was another one"


@pytest.mark.parametrize(
    ("state", "facts", "is_refused"),
    [
        (BROKEN, {}, True),
        (LOST, {}, False),
        (State("END", "NOT_FOUND"), {}, False),
        (BROKEN, {"backoffs": {2: Backoff("of 2", 1, 900.0, before=BROKEN)}}, False),
        (BROKEN, {"bringing": 2}, False),
    ],
    ids=[
        "it can never load",
        "it may pass",
        "it is doubtful",
        "it failed so before it was there",
        "it comes again",
    ],
)
def test_what_is_hidden_is_refused_once_the_server_says_that_it_can_never_load(
    state: State, facts: dict[str, Any], is_refused: bool
) -> None:
    model = replace(hidden(2, again=900.0), held={"bucket": {1: True}}, states={1: AVAILABLE, 2: state})
    known = knowing(replace(model, **facts), refused=refusal(2, may_pass=True))
    done = list(plan.confirm(known, TEA, 0.0, RULES))
    assert (Ref(TEA, 2) in [one.ref for one in done if isinstance(one, effects.Refuse)]) == is_refused
    tried_again = replace(known, refused={})
    assert not [one for one in plan.confirm(tried_again, TEA, 0.0, RULES) if isinstance(one, effects.Refuse)]


def test_what_is_hidden_and_older_than_what_serves_goes() -> None:
    backoffs = {version: Backoff("then", 1, 900.0) for version in (1, 2, 3)}
    known = Answered(TEA, 0.0, {2: AVAILABLE}).added_to(knowing(holding(2, backoffs=backoffs)))
    removed = [
        one.ref.version for one in plan.confirm(known, TEA, 0.0, RULES) if isinstance(one, effects.Remove)
    ]
    assert removed == [1]
    assert set(known.models[TEA].backoffs) == {1, 3}, "it serves, so it is not hidden"


def test_what_was_hidden_as_something_else_begins_anew() -> None:
    model = holding(
        1, states={1: LOST}, loading=Loading(1, "of 1"), backoffs={1: Backoff("of before", 5, 0.0)}
    )
    (hide,) = plan.confirm(knowing(model), TEA, 0.0, RULES)
    assert isinstance(hide, effects.Hide)
    assert hide.tries == 1


def test_a_model_that_the_server_does_not_know_for_long_is_told_once_if_there_is_a_version() -> None:
    known = knowing(holding(1))
    for at, states in ((0.0, {}), (100.0, None), (200.0, {}), (319.0, {})):
        known = Answered(TEA, at, states).added_to(known)
        assert list(plan.confirm(known, TEA, at, RULES)) == []
    assert list(plan.confirm(known, TEA, 320.0, RULES)) == [effects.Diagnose(TEA)]
    told = knowing(replace(known.models[TEA], fault="it does not know it"))
    assert list(plan.confirm(told, TEA, 320.0, RULES)) == []
    assert Answered(TEA, 330.0, {1: LOADING}).added_to(told).models[TEA].fault is None
    empty = Answered(TEA, 0.0, {}).added_to(knowing(Model()))
    assert list(plan.confirm(empty, TEA, 900.0, RULES)) == []


def test_what_was_refused_and_is_there_is_removed_but_not_while_a_version_is_brought() -> None:
    wrong = Refused("content", "a byte is wrong")
    known = knowing(holding(1, 2, tried=tried(inspection=wrong)), refused=refusal(2))
    refuse, remove = effects.Refuse(Ref(TEA, 3), "of 3", wrong), effects.Remove(Ref(TEA, 2))
    assert list(plan.sweep(known, TEA)) == [refuse, remove]
    assert list(plan.sweep(knowing(replace(known.models[TEA], bringing=3)), TEA)) == []


def test_a_model_is_configured_with_its_first_whole_version_where_that_is_new() -> None:
    known = Known(models={TEA: holding(1), "half": Model(held={"bucket": {1: False}})})
    (done,) = plan.configure(known, ["bucket"], RULES)
    assert done == effects.Configure("bucket", {TEA: frozenset()})
    configured = replace(known, configured={"bucket": done.models})
    assert list(plan.configure(configured, ["bucket"], RULES)) == []


# --- what is observed ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "observation",
    [
        Looked({TEA: offers(4, 3)}),
        Looked(fault="the link is cut"),
        Holdings({"bucket": {TEA: {1: True}}}),
        Answered(TEA, 5.0, {1: AVAILABLE}),
        Answered(TEA, 5.0, {}),
        Answered(TEA, 5.0, None, "it does not answer"),
        Reconsidered(Ref(TEA, 3)),
        Brought(Tried(offered(3), WAITS)),
        Brought(Tried(offered(3)), Loading(3, "of 3")),
    ],
    ids=lambda observation: type(observation).__name__,
)
def test_an_observation_made_twice_is_as_one_and_leaves_what_was_known_before(
    observation: Observation,
) -> None:
    before = knowing(
        holding(1, bringing=3, tried=tried(failures=1, **FAILED), backoffs={2: Backoff("of 2", 1, 9.0)}),
        refused=refusal(3),
        central_fault="the link is cut",
    )
    as_it_was = repr(before)
    after = observation.added_to(before)
    assert observation.added_to(after) == after
    assert repr(before) == as_it_was


def test_what_could_not_be_brought_is_due_once_central_is_back() -> None:
    known = knowing(Model(offer=offers(3), tried=tried(failures=9, **FAILED)))
    known = Looked({TEA: offers(3)}).added_to(known)
    assert plan.bring(known, now=30.0) == [], "it was there all the time"
    known = Looked(fault="the link is cut").added_to(known)
    assert plan.bring(known, now=30.0) == []
    known = Looked({TEA: offers(3)}).added_to(known)
    assert plan.bring(known, now=30.0) == [offered(3)]


def test_what_came_of_a_version_is_forgotten_once_it_is_not_offered() -> None:
    known = Looked({TEA: offers(2)}).added_to(knowing(Model(tried=tried(failures=1, **FAILED))))
    assert known.has_looked
    assert known.models[TEA].tried == {}


def test_of_a_version_that_is_brought_a_listing_says_nothing_and_its_end_all() -> None:
    known = knowing(holding(1, bringing=2))
    known = Holdings({"bucket": {TEA: {1: True, 2: True}}, "directory": {TEA: {1: True}}}).added_to(known)
    assert known.models[TEA].held == {"bucket": {1: True}, "directory": {1: True}}
    known = Brought(Tried(offered(2)), Loading(2, "of 2")).added_to(known)
    assert (known.models[TEA].newest, known.models[TEA].bringing, known.models[TEA].loading.version) == (
        2,
        0,
        2,
    )


def test_what_serves_here_is_waited_for_where_it_cannot_be_copied_again() -> None:
    known = knowing(Model(bringing=3, offer=offers(3)), served={Ref(TEA, 3): datetime.now(UTC)})
    known = Brought(Tried(offered(3), Refused("content", "a byte is wrong"))).added_to(known)
    assert list(plan.sweep(known, TEA)) == []
    assert "a byte is wrong" in known.models[TEA].waiting[3]
    assert plan.bring(known, now=30.0) == []
    known = Brought(Tried(offered(3), Refused("content", "a byte is wrong"))).added_to(
        replace(known, served={})
    )
    assert [type(effect) for effect in plan.sweep(known, TEA)] == [effects.Refuse]


def test_the_time_to_load_counts_only_while_the_server_answers() -> None:
    known = knowing(holding(1, offer=offers(1)))
    for at, states in ((0.0, {1: LOADING}), (100.0, None), (200.0, {1: LOADING}), (319.0, {1: LOADING})):
        known = Answered(TEA, at, states).added_to(known)
        assert list(plan.confirm(known, TEA, at, RULES)) == []
    assert [type(effect) for effect in plan.confirm(known, TEA, 320.0, RULES)] == [effects.Hide]
    newer = knowing(replace(known.models[TEA], held={"bucket": {2: True}}, offer=offers(2)))
    newer = Answered(TEA, 320.0, {2: LOADING}).added_to(newer)
    assert list(plan.confirm(newer, TEA, 320.0, RULES)) == [], "another version has its own time"


# --- what follows at once -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "facts", "standing"),
    [
        (Model(), {}, "open"),
        (Model(tried=tried(inspection=WAITS)), {}, "waiting"),
        (Model(tried={3: Tried(offered(3, fingerprint="of before"), WAITS)}), {}, "open"),
        (Model(tried=tried(failures=TRIES - 1, **FAILED)), {}, "open"),
        (Model(tried=tried(failures=TRIES, **FAILED)), {}, "waiting"),
        (Model(), {"refused": refusal(3)}, "refused"),
    ],
)
def test_a_look_is_told_how_a_version_stands(model: Model, facts: dict[str, Any], standing: str) -> None:
    known = knowing(model, **facts)
    assert known.standing(offered(3), known.fingerprints_refused(0.0)) == standing


def test_ready_is_the_newest_that_may_serve_and_all_is_settled_only_once_it_does() -> None:
    model = holding(2, states={2: AVAILABLE}, offer=offers(3, 2))
    assert model.ready({}) == 3
    assert model.ready({Ref(TEA, 3): "of 3"}) == 2
    assert replace(model, tried=tried(inspection=WAITS)).ready({}) == 2
    assert model.is_settled
    for change in (
        {"tried": tried(inspection=WAITS)},
        {"bringing": 3},
        {"states": None},
        {"stuck": "it fails"},
    ):
        assert not replace(model, **change).is_settled
    assert not replace(model, backoffs={3: Backoff("of 3", 1, 9.0)}).is_settled
