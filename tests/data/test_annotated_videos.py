"""Films with rows of actions beside them: every kind of rows, alignment, and what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from videos import moving_frames, write_video

from vqvideo.data.config import ImportConfig
from vqvideo.data.formats import format_of
from vqvideo.data.importing import import_data
from vqvideo.data.store import Store
from vqvideo.errors import InputError

STEER = np.linspace(-1, 1, 12)
REWARD = np.arange(12.0)


def imported(source: Path, **options: Any) -> Store:
    folder = source.parent if source.is_file() else source
    return Store.open(import_data(ImportConfig(source, **{"out": folder.parent / "store", "steps": 200} | options)))


def game(folder: Path, rows: str, count: int = 12, name: str = "a") -> Path:
    """A film of 12 frames and rows of any kind beside it."""
    write_video(folder / f"{name}.mkv", moving_frames(12))
    table = {"action": STEER[:count], "reward": REWARD[:count], "done": np.arange(count) == count - 1}
    path = folder / f"{name}.{rows}"
    if rows == "csv":
        lines = zip(*(column.tolist() for column in table.values()), strict=True)
        path.write_text("\n".join([",".join(table), *(",".join(map(str, line)) for line in lines)]))
    elif rows == "jsonl":
        lines = zip(*(column.tolist() for column in table.values()), strict=True)
        path.write_text("\n".join(json.dumps(dict(zip(table, line, strict=True))) for line in lines))
    elif rows == "npz":
        np.savez_compressed(path, **table)
    else:
        np.save(path, np.stack([STEER[:count], -STEER[:count]], axis=1))
    return folder


@pytest.mark.parametrize("rows", ["csv", "jsonl", "npz", "npy"])
def test_rows_of_any_kind_lead_from_their_frames(tmp_path: Path, rows: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = game(tmp_path / "films", rows)
    store = imported(folder)
    episode = store.episode(store.entries[0])
    assert len(episode.frames) == 12
    assert episode.actions[:, 0] == pytest.approx(STEER[:-1])
    said = capsys.readouterr().out
    assert "action t is taken to lead from frame t to frame t+1 (--action-leads)" in said
    assert "they are taken from the data, with a margin of 10%: [-1." in said
    assert store.meta.imported == "annotated-videos"
    if rows == "npy":
        assert store.meta.missing == ("ends", "rewards")
        assert "rewards are missing: a world model of these episodes knows none" in said
    else:
        assert store.meta.missing == ()
        assert episode.rewards.tolist() == list(range(11))
        assert not episode.terminated.any(), "the last row has no frame, and its end is dropped with it"
        assert "the last action leads to no frame: dropped with a reward and the end of the episode" in said


def test_the_last_frame_is_shown_again_when_that_is_asked_for(tmp_path: Path) -> None:
    store = imported(game(tmp_path / "films", "npz"), align="repeat-last")
    episode = store.episode(store.entries[0])
    assert np.array_equal(episode.frames[-1], episode.frames[-2])
    assert (len(episode.frames), episode.rewards[-1], episode.terminated[-1]) == (13, 11, True)


def test_rows_that_lead_to_their_frames_do_so(tmp_path: Path) -> None:
    store = imported(game(tmp_path / "films", "npz"), action_leads="to")
    episode = store.episode(store.entries[0])
    assert episode.actions[:, 0] == pytest.approx(STEER[1:])
    assert (episode.rewards[0], episode.terminated[-1]) == (1, True)


def test_a_row_less_than_frames_fits(tmp_path: Path) -> None:
    for leads in ("from", "to"):
        store = imported(game(tmp_path / leads, "npz", 11), action_leads=leads, out=tmp_path / f"store_{leads}")
        episode = store.episode(store.entries[0])
        assert episode.actions[:, 0] == pytest.approx(STEER[:11])
        assert episode.terminated[-1]


def test_the_last_line_may_lack_its_action(tmp_path: Path) -> None:
    folder = game(tmp_path / "films", "csv", 11)
    with (folder / "a.csv").open("a") as file:
        file.write("\n,,")
    assert imported(folder).episode(imported(folder).entries[0]).actions[:, 0] == pytest.approx(STEER[:11])


def test_words_and_choices(tmp_path: Path) -> None:
    folder = game(tmp_path / "films", "csv")
    (folder / "a.csv").write_text("frame,key,player\n" + "\n".join(f"{n},{n % 4},me" for n in range(12)))
    with pytest.raises(InputError, match=r"a\.csv: no column is called action: --columns actions=NAME"):
        imported(folder)
    store = imported(folder, columns={"actions": "key"})
    assert str(store.meta.action_space) == "Discrete(4)"
    assert store.episode(store.entries[0]).actions[:5, 0].tolist() == [0, 1, 2, 3, 0]
    with pytest.raises(InputError, match=r"there is no column 'keys' \(--columns actions=keys\); did you mean key\?"):
        imported(folder, columns={"actions": "keys"}, out=tmp_path / "other")


def test_several_columns_become_one_action(tmp_path: Path) -> None:
    folder = game(tmp_path / "films", "csv")
    (folder / "a.csv").write_text("action_gas,action_brake\n" + "\n".join(f"{n / 10},0.5" for n in range(12)))
    store = imported(folder)
    assert store.meta.action_space.size == 2
    assert store.episode(store.entries[0]).actions[3].tolist() == [0.3, 0.5]


@pytest.mark.parametrize(("count", "found"), [(7, "12 frames and 7 rows"), (20, "12 frames and 20 rows")])
def test_frames_and_rows_are_counted(tmp_path: Path, count: int, found: str) -> None:
    folder = game(tmp_path / "films", "csv")
    (folder / "a.csv").write_text("action\n" + "\n".join(str(n / 10) for n in range(count)))
    with pytest.raises(InputError, match=rf"a\.mkv: {found}, expected a row per frame or one less.*--align shortest"):
        imported(folder)
    assert not (tmp_path / "store").exists()
    store = imported(folder, align="shortest")
    assert store.entries[0].length == min(count, 12) - 1


def test_a_frame_that_cannot_be_decoded_does_not_displace_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vqvideo.data.formats.videos import Film

    folder = game(tmp_path / "films", "npz")
    film = Film(folder / "a.mkv", every_frame=True)
    film.times = np.insert(film.times, 5, film.times[5] - 1)[:-1]
    with pytest.raises(InputError, match="frame 5 cannot be decoded, and the rows behind it would be displaced"):
        list(film.frames())
    assert len(list(Film(folder / "a.mkv").frames())) == 12


def test_films_without_rows_are_named(tmp_path: Path) -> None:
    folder = game(tmp_path / "films", "npz")
    assert format_of(folder) == "annotated-videos"
    write_video(folder / "b.mkv", moving_frames(3))
    with pytest.raises(InputError, match=r"1 of 2 videos have no file of actions .*b\.mkv: expected b\.csv"):
        imported(folder)
    assert imported(folder, format="videos").meta.action_space.size == 0


BAD = [
    ("a.csv", "action\n1\nnan\n" + "2\n" * 10, r"the action of row 1 is \[nan\], expected finite"),
    ("a.csv", "1,2\n" * 12, "the first line is .*expected the names of the columns"),
    ("a.csv", "action,x\n1\n" * 12, "line 2: 1 cells, expected 2"),
    ("a.csv", "action\n1\n\n2\n" + "3\n" * 9, "expected"),
    ("a.jsonl", '{"action": 1}\n[2]\n', "line 2: a list, expected an object"),
    ("a.jsonl", '{"action": 1}\n{"action"', r"a\.jsonl, line 2"),
    ("a.npz", "junk", r"a\.npz: not a \.npz file that can be read"),
    ("a.npy", "junk", r"a\.npy: not a \.npy file that can be read"),
]


@pytest.mark.parametrize(("name", "content", "said"), BAD)
def test_bad_rows_are_refused_with_their_place(tmp_path: Path, name: str, content: str, said: str) -> None:
    write_video(tmp_path / "films" / "a.mkv", moving_frames(12))
    (tmp_path / "films" / name).write_text(content)
    with pytest.raises(InputError, match=f"(?s){said}"):
        imported(tmp_path / "films")
    assert not (tmp_path / "store").exists()


def test_nothing_is_unpickled_and_no_bomb_unpacked(tmp_path: Path) -> None:
    folder = game(tmp_path / "films", "npz")
    np.savez(folder / "a.npz", action=np.array([{"x": 1}] * 12, dtype=object))
    with pytest.raises(InputError, match="no column is called action"):
        imported(folder)
    np.savez_compressed(folder / "a.npz", action=STEER)
    data = (folder / "a.npz").read_bytes()
    import io
    import zipfile

    lying = io.BytesIO()
    with zipfile.ZipFile(lying, "w") as archive:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
        archive.writestr("action.npy", header.getvalue() + b"0" * 80)
    (folder / "a.npz").write_bytes(lying.getvalue())
    with pytest.raises(InputError, match="action says 8000000000000 bytes of float64"):
        imported(folder)
    (folder / "a.npz").write_bytes(data)
    assert imported(folder).entries


def test_keyboard_and_mouse_of_vpt(tmp_path: Path) -> None:
    folder = tmp_path / "films"
    write_video(folder / "a.mp4", moving_frames(4), fps=20, codec="libx264", pixels="yuv444p")
    lines = [
        {
            "mouse": {"dx": 10.0 * n, "dy": 0.0, "buttons": [0] if n == 1 else [], "newButtons": []},
            "keyboard": {"keys": ["key.keyboard.w"] if n == 2 else [], "chars": ""},
            "isGuiOpen": False,
        }
        for n in range(4)
    ]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert format_of(folder) == "vpt"
    store = imported(folder)
    episode = store.episode(store.entries[0])
    assert episode.actions[:, 1].tolist() == [0, 1.5, 3], "degrees for ten pixels of the mouse"
    assert np.argwhere(episode.actions[:, 2:]).tolist() == [[1, 20], [2, 0]]
    assert store.meta.fps == 20
    (folder / "a.jsonl").write_text('{"mouse": 1, "keyboard": 2}\n' * 4)
    with pytest.raises(InputError, match=r"a\.jsonl, line 1: .*expected mouse with dx"):
        imported(folder, out=tmp_path / "other")
