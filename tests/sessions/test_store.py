"""The log as its users see it: what goes in comes out, in order, under the right name."""

import sqlite3
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.core.errors import NotFoundError, UsageError
from llmctl.sessions.store import NewTurn, SessionLog
from tests.sessions.talk import assistant, contents, talk, user


def test_a_turn_comes_back_as_it_went_in(log: SessionLog) -> None:
    before = time.time()
    given = NewTurn(
        role="assistant",
        content="Paris.",
        reasoning="France, so",
        model="demo",
        endpoint="http://127.0.0.1:1/v1",
        finish_reason="length",
        prompt_tokens=7,
        completion_tokens=3,
        first_token_s=0.25,
        total_s=1.5,
    )
    session_id = log.start()
    turn_id = log.append(session_id, given)
    (turn,) = log.turns(session_id)
    assert (turn.id, turn.session_id, turn.is_retracted) == (turn_id, session_id, False)
    assert before <= turn.created <= time.time()
    assert {field: getattr(turn, field) for field in NewTurn.__slots__} == {
        field: getattr(given, field) for field in NewTurn.__slots__
    }


def test_what_was_appended_is_there_after_reopening(log: SessionLog, path: Path) -> None:
    session_id = talk(log, "Hello", "Hi.")
    log.close()
    with SessionLog.open(path) as again:
        assert contents(again.turns(session_id)) == ["Hello", "Hi."]


def test_a_session_tells_what_it_is_about(log: SessionLog) -> None:
    session_id = log.start(name="first")
    log.append(session_id, NewTurn(role="system", content="Be brief."))
    log.append(session_id, user("What is\n the capital?", model="small"))
    log.append(session_id, assistant("Of what?", model="large"))
    log.append(session_id, user("Of France."))
    (session,) = log.list(limit=None)
    assert (session.id, session.name, session.title) == (session_id, "first", "What is the capital?")
    assert (session.model, session.num_turns) == ("large", 4)
    assert session.created <= session.updated


def test_a_new_session_is_empty(log: SessionLog) -> None:
    (session,) = (log.find(str(log.start())),)
    assert (session.name, session.title, session.model, session.num_turns) == (None, "", None, 0)
    assert log.turns(session.id) == []


def test_the_list_is_newest_first_and_as_long_as_wanted(log: SessionLog) -> None:
    first, second, third = (talk(log, text) for text in ("one", "two", "three"))
    log.append(first, assistant("again"))
    assert [session.id for session in log.list(limit=None)] == [first, third, second]
    assert [session.id for session in log.list(limit=2)] == [first, third]


def test_the_latest_is_the_one_updated_last_that_has_turns(log: SessionLog) -> None:
    assert log.latest() is None
    first, second = talk(log, "one"), talk(log, "two")
    log.start()
    latest = log.latest()
    assert latest is not None
    assert latest.id == second
    log.append(first, user("more"))
    latest = log.latest()
    assert latest is not None
    assert latest.id == first


def test_a_session_whose_turns_are_all_retracted_is_not_the_latest(log: SessionLog) -> None:
    first, second = talk(log, "one"), talk(log, "two")
    log.retract([turn.id for turn in log.turns(second)])
    latest = log.latest()
    assert latest is not None
    assert latest.id == first


def test_retracted_turns_leave_the_conversation_but_not_the_log(log: SessionLog) -> None:
    session_id = talk(log, "wrong", "answer", "right", "yes")
    wrong, answer, *_ = log.turns(session_id)
    log.retract([wrong.id, answer.id])
    assert contents(log.turns(session_id)) == ["right", "yes"]
    with_retracted = log.turns(session_id, with_retracted=True)
    assert [(turn.content, turn.is_retracted) for turn in with_retracted] == [
        ("wrong", True),
        ("answer", True),
        ("right", False),
        ("yes", False),
    ]
    session = log.find(str(session_id))
    assert (session.title, session.num_turns) == ("right", 2)


def test_a_session_without_words_takes_its_title_from_the_next(log: SessionLog) -> None:
    session_id = talk(log, "first", "x")
    log.retract([turn.id for turn in log.turns(session_id)])
    assert log.find(str(session_id)).title == ""
    log.append(session_id, user(" \n"))
    log.append(session_id, user("second"))
    assert log.find(str(session_id)).title == "second"


def test_retracting_twice_or_what_is_not_there_changes_nothing(log: SessionLog) -> None:
    session_id = talk(log, "a", "b")
    (a, _) = log.turns(session_id)
    log.retract([a.id])
    log.retract([a.id, 999])
    log.retract([])
    assert log.find(str(session_id)).num_turns == 1


def test_a_session_is_found_by_name_and_by_number(log: SessionLog) -> None:
    session_id = talk(log, "x", name="7 up")
    assert log.find("7 up") == log.find(str(session_id)) == log.list(limit=1)[0]


@pytest.mark.parametrize(
    "text", ["rom", "Rome", "", "99", "9" * 30, "١", "-1", "1.0", "\ud800", "x' OR 1=1 --"]
)
def test_a_session_that_is_not_there_is_named_with_the_way_to_the_list(log: SessionLog, text: str) -> None:
    talk(log, "x", name="romania")
    with pytest.raises(NotFoundError) as caught:
        log.find(text)
    assert caught.value.message == f"no such session: {text}"
    assert caught.value.hint is not None
    assert "llmctl logs list" in caught.value.hint


@pytest.mark.parametrize("text", ["trip to rome", "trip to Roma", "TRIP TO ROME", "tripto Rome"])
def test_near_names_are_offered(log: SessionLog, text: str) -> None:
    for name in ("trip to Rome", "taxes", "recipes"):
        log.start(name=name)
    with pytest.raises(NotFoundError) as caught:
        log.find(text)
    assert caught.value.hint is not None
    assert "did you mean trip to Rome?" in caught.value.hint


def test_names_are_those_given_the_last_used_first(log: SessionLog) -> None:
    first = talk(log, "x", name="a")
    talk(log, "x")
    talk(log, "x", name="b")
    log.append(first, user("y"))
    assert log.names() == ["a", "b"]


def test_a_session_can_be_renamed_to_what_is_free(log: SessionLog) -> None:
    session_id = talk(log, "x", name="old")
    log.rename(session_id, "new")
    log.rename(session_id, "new")
    assert log.find("new").id == session_id
    assert log.checked_name("old") == "old"
    assert log.names() == ["new"]


def test_a_name_can_be_given_once(log: SessionLog) -> None:
    session_id, other = talk(log, "x", name="taken"), talk(log, "y")
    for attempt in (
        lambda: log.start(name="taken"),
        lambda: log.rename(other, "taken"),
        lambda: log.checked_name("taken"),
    ):
        with pytest.raises(UsageError, match=f"'taken' already, number {session_id}"):
            attempt()
    assert len(log.list(limit=None)) == 2


def test_a_name_that_is_not_allowed_is_refused_and_nothing_begun(log: SessionLog) -> None:
    session_id = talk(log, "x")
    for attempt in (
        lambda: log.start(name="12"),
        lambda: log.rename(session_id, "12"),
        lambda: log.checked_name("12"),
    ):
        with pytest.raises(UsageError, match="only digits"):
            attempt()
    assert [session.name for session in log.list(limit=None)] == [None]


def test_deleting_takes_the_turns_along_and_counts(log: SessionLog) -> None:
    first, second, third = talk(log, "a", "b", name="n"), talk(log, "c"), talk(log, "d")
    assert log.delete([first, third, 999]) == 2
    assert [session.id for session in log.list(limit=None)] == [second]
    assert log.turns(first, with_retracted=True) == []
    assert log.start(name="n") > third
    assert log.delete([]) == 0


def test_the_number_of_a_deleted_session_is_not_given_again(log: SessionLog) -> None:
    session_id = talk(log, "a")
    (turn,) = log.turns(session_id)
    log.delete([session_id])
    again = talk(log, "b")
    assert again > session_id
    assert log.turns(again)[0].id > turn.id


def test_what_was_deleted_is_no_more_in_any_file(log: SessionLog, path: Path) -> None:
    kept = talk(log, "harmless talk")
    session_id = talk(log, "the SECRET-4711 word", "SECRET-4711 is safe with me" * 1000)
    log.delete([session_id])
    files = sorted(path.parent.iterdir())
    assert path in files
    assert [file.name for file in files if b"SECRET-4711" in file.read_bytes()] == []
    assert contents(log.turns(kept)) == ["harmless talk"]


def test_a_session_that_another_process_deleted_is_not_found(log: SessionLog, path: Path) -> None:
    session_id = talk(log, "a")
    with SessionLog.open(path) as other:
        other.delete([session_id])
    for attempt in (lambda: log.append(session_id, user("b")), lambda: log.rename(session_id, "name")):
        with pytest.raises(NotFoundError, match=f"no such session: {session_id}"):
            attempt()
    assert log.list(limit=None) == []


def test_two_that_are_open_at_once_see_what_the_other_writes(log: SessionLog, path: Path) -> None:
    with SessionLog.open(path) as other:
        session_id = log.start()
        for number in range(6):
            (log, other)[number % 2].append(session_id, user(str(number)))
        assert contents(log.turns(session_id)) == contents(other.turns(session_id)) == list("012345")


def test_half_characters_are_replaced(log: SessionLog) -> None:
    session_id = log.start()
    log.append(session_id, user("a\ud800b\udfffc", reasoning="\udc80", model="\ud800"))
    (turn,) = log.turns(session_id)
    assert (turn.content, turn.reasoning, turn.model) == ("a�b�c", "�", "�")
    assert log.find(str(session_id)).title == "a�b�c"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\0",
        "a\0b\0",
        "\r\n\r",
        "\x1b[2J",
        "😀👩‍👩‍👧",
        "\uffff\ufffe\ufeff",
        "x' \" -- ; DROP TABLE turns",
    ],
)
def test_any_text_is_kept_to_the_letter(log: SessionLog, content: str) -> None:
    session_id = talk(log, content, content)
    assert contents(log.turns(session_id)) == [content, content]


def test_an_answer_of_ten_megabytes_is_kept_and_found(log: SessionLog) -> None:
    content = "lorem ipsum " * 500_000 + "needle" + " dolor sit amet" * 250_000
    session_id = talk(log, "long?", content)
    assert log.turns(session_id)[1].content == content
    (hit,) = log.search("NEEDLE", limit=5)
    assert "needle" in hit.snippet
    assert len(hit.snippet) < 200


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(st.text(st.characters()), max_size=6))
def test_whatever_is_said_comes_back_in_order(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "said" / "log.db"
    with SessionLog.open(path) as log:
        session_id = talk(log, *texts)
        kept = contents(log.turns(session_id))
    assert len(kept) == len(texts)
    for before, after in zip(texts, kept, strict=True):
        assert len(before) == len(after)
        pairs = zip(before, after, strict=True)
        assert all(new == old or ("\ud800" <= old <= "\udfff" and new == "�") for old, new in pairs)


def test_a_failure_inside_a_write_leaves_nothing_of_it(log: SessionLog) -> None:
    session_id = talk(log, "a")
    # A turn that the table refuses, after the session has been updated.
    broken = NewTurn(role=None, content="b")  # type: ignore[arg-type]
    with pytest.raises(Exception, match="NOT NULL"):
        log.append(session_id, broken)
    assert log.find(str(session_id)).num_turns == 1
    assert log.append(session_id, user("c"))


def test_a_closed_log_is_a_mistake_of_the_program(log: SessionLog) -> None:
    log.close()
    with pytest.raises(sqlite3.ProgrammingError):
        log.names()
