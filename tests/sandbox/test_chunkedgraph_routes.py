"""The chunkedgraph's routes where nothing was recorded: edits, locks, virtual tables, repaired defects, prices."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.lattice import CREATED_MS, centre_nm, lattice, supervoxel

from cortexclient.sandbox import Sandbox, World, costs
from cortexclient.sandbox.calls import Call, Reply
from cortexclient.sandbox.graph import NEVER
from cortexclient.sandbox.router import Match, Router
from cortexclient.sandbox.routes.chunkedgraph import ROUTES, on_error
from cortexclient.sandbox.world import Datastack

ROUTER = Router([ROUTES])
NOW_MS = CREATED_MS + 10_000
TABLE = "/segmentation/api/v1/table/t"
A, B, C, D = supervoxel(0, 0), supervoxel(1, 0), supervoxel(2, 0), supervoxel(5, 2)


@pytest.fixture
def world() -> World:
    return World("lattice", 0, lattice(), datastacks={"lattice": Datastack("lattice", "volume", "t")})


def ask(
    world: World,
    method: str,
    path: str,
    body: Any = b"",
    *,
    query: dict[str, str] | None = None,
    now_ms: int | None = None,
    **more: Any,
) -> Reply:
    """The answer of the handler of a path below the table, or of an absolute one; now is just after the last edit."""
    now_ms = max(NOW_MS, world.graph.newest_ms + 1) if now_ms is None else now_ms
    path = path if path.startswith("/segmentation") else TABLE + path
    match = ROUTER.find(method, path)
    assert isinstance(match, Match)
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    call = Call(method, path, match.params, query or {}, {}, sent, now_ms, "http://127.0.0.1", 101, **more)
    try:
        return match.route.handler(world, call)
    except Exception as error:  # noqa: BLE001 - the server catches whatever a handler lets through
        return on_error(call, error)


def read(reply: Reply) -> Any:
    assert reply.status == 200, reply.body
    return json.loads(reply.body)


def merge(world: World, a: int, b: int, **more: Any) -> Reply:
    points = [[node, *centre_nm(int(world.graph.layout.chunk(node)[0]))] for node in (a, b)]
    return ask(world, "POST", "/merge", points, **more)


class TestEdits:
    def test_merge_then_undo_then_redo(self, world: World) -> None:
        merged = read(merge(world, A, B))
        assert merged["operation_id"] == 1
        (root,) = merged["new_root_ids"]
        assert world.graph.leaves(root).tolist() == [A, B]
        undone = read(ask(world, "POST", "/undo", {"operation_id": 1}))
        assert len(undone["new_root_ids"]) == 2
        again = read(ask(world, "POST", "/undo", {"operation_id": 1}))
        assert again == {"operation_id": None, "new_root_ids": []}
        redone = read(ask(world, "POST", "/redo", {"operation_id": 1}))
        assert redone["operation_id"] == 3
        details = read(ask(world, "GET", "/operation_details", query={"operation_ids": "[1, 2, 3, 9]"}))
        assert [details[number]["user"] for number in "123"] == ["101"] * 3
        assert details["1"]["source_coords"] == [[8, 8, 4]]
        assert details["2"]["removed_edges"] == details["3"]["added_edges"] == [[A, B]]
        assert (details["2"]["undo_operation_id"], details["3"]["redo_operation_id"]) == (1, 1)

    def test_split_by_points_of_a_root(self, world: World) -> None:
        for a, b in ((A, B), (B, C)):
            root = read(merge(world, a, b))["new_root_ids"][0]
        sides = {"sources": [[root, *centre_nm(0)]], "sinks": [[root, *centre_nm(2)]]}
        preview = read(ask(world, "POST", "/graph/split_preview", sides))
        assert not preview["illegal_split"]
        assert sorted(map(sorted, preview["supervoxel_connected_components"])) in ([[A], [B, C]], [[A, B], [C]])
        split = read(ask(world, "POST", "/split", sides))
        parts = sorted(world.graph.leaves(part).tolist() for part in split["new_root_ids"])
        assert parts == sorted(map(sorted, preview["supervoxel_connected_components"]))

    @pytest.mark.parametrize("strict", [True, False])
    def test_refusals(self, world: World, strict: bool) -> None:
        merge(world, A, B)
        refused = {
            "self-loop": merge(world, A, A, strict=strict),
            "different objects": merge(world, A, B, strict=strict),
            "3 chunks": merge(world, A, D, strict=strict),
            "same object": ask(
                world,
                "POST",
                "/split",
                {"sources": [[A, *centre_nm(0)]], "sinks": [[C, *centre_nm(2)]]},
                strict=strict,
            ),
        }
        for text, reply in refused.items():
            body = json.loads(reply.body)
            assert reply.status == body["code"] == 400
            assert body["message"].startswith("[400]: ")
            assert text in body["message"]
            assert "traceback" not in body
        assert sorted(world.graph.operations) == [1, 2], "only the refusal behind the lock uses up an id"
        assert world.graph.operations[2].status == 1

    def test_unknown_operation(self, world: World) -> None:
        assert ask(world, "POST", "/undo", {"operation_id": 7}).status == 404
        assert ask(world, "POST", "/undo", {"operation_id": 7}, strict=True).status == 500

    def test_an_object_is_locked_while_an_edit_takes_time(self, world: World) -> None:
        assert merge(world, A, B, timed=True).status == 200
        second = merge(world, B, C, timed=True, now_ms=NOW_MS + 100)
        assert second.status == 500
        assert json.loads(second.body)["message"] == "[500]: Could not acquire root lock"
        assert second.price > 3
        assert read(ask(world, "GET", f"/node/{A}/root", now_ms=NOW_MS + 100)), "reads are never blocked"
        assert merge(world, C, supervoxel(3, 0), timed=True, now_ms=NOW_MS + 100).status == 200
        later = NOW_MS + round(costs.EDIT * 1000) + 200
        assert merge(world, B, C, timed=True, now_ms=later).status == 200

    def test_everything_that_follows_from_edits(self, world: World) -> None:
        first = read(merge(world, A, B))["new_root_ids"][0]
        second = read(merge(world, B, C, now_ms=NOW_MS + 1000))["new_root_ids"][0]
        late = {"now_ms": NOW_MS + 5000}
        latest = read(ask(world, "POST", "/is_latest_roots", {"node_ids": [first, second]}, **late))
        assert latest == {"is_latest": [False, True]}
        lineage = read(ask(world, "POST", "/lineage_graph_multiple", {"root_ids": [second]}, **late))
        assert {"source": first, "target": second} in lineage["links"]
        assert len(lineage["nodes"]) == 5
        log = read(ask(world, "GET", f"/root/{second}/change_log", query={"filtered": "True"}, **late))
        assert (log["n_mergers"], log["n_splits"], log["operations_ids"]) == (2, 0, [1, 2])
        level2 = read(ask(world, "GET", f"/node/{second}/lvl2_graph", **late))["edge_graph"]
        assert len(level2) == 2
        path = read(ask(world, "POST", "/graph/find_path", [[second, *centre_nm(0)], [second, *centre_nm(2)]], **late))
        assert len(path["l2_path"]) == 3
        assert path["centroids_list"][0] == centre_nm(0)
        edges = read(ask(world, "GET", f"/node/{second}/subgraph", **late))
        assert edges["nodes"] == [[A, B], [B, A], [B, C], [C, B]]
        delta = read(ask(world, "GET", "/delta_roots", query={"timestamp_past": str(NOW_MS / 1000 + 0.5)}, **late))
        assert delta["new_roots"] == [second]
        assert first in delta["old_roots"]


class TestVirtualTables:
    @pytest.fixture
    def public(self, world: World) -> World:
        world.graph.merge(A, B, time_ms=NOW_MS)
        world.graph.merge(B, C, time_ms=NOW_MS + 1000)
        world.datastacks["public"] = Datastack("public", "volume", "t_public", ceiling_ms=NOW_MS + 500)
        return world

    def ask(self, world: World, method: str, path: str, body: Any = b"", **more: Any) -> Reply:
        return ask(world, method, f"/segmentation/api/v1/table/t_public{path}", body, now_ms=NOW_MS + 9000, **more)

    def test_now_is_the_ceiling(self, public: World) -> None:
        first, second = public.graph.operations[1].roots[0], public.graph.operations[2].roots[0]
        sent = np.array([A], np.uint64).tobytes()
        for query in ({}, {"timestamp": str(NOW_MS / 1000 + 5)}):
            reply = self.ask(public, "POST", "/roots_binary", sent, query=query)
            assert np.frombuffer(reply.body, np.uint64).tolist() == [first]
        body = {"node_ids": [first, second]}
        assert read(self.ask(public, "POST", "/is_latest_roots", body)) == {"is_latest": [True, False]}
        earlier = self.ask(public, "POST", "/roots_binary", sent, query={"timestamp": str(NOW_MS / 1000 - 1)})
        assert np.frombuffer(earlier.body, np.uint64)[0] not in (first, second)

    def test_what_came_later_is_refused(self, public: World) -> None:
        second = public.graph.operations[2].roots[0]
        for reply in (
            self.ask(public, "GET", f"/node/{second}/leaves"),
            self.ask(public, "GET", f"/root/{second}/change_log"),
            self.ask(public, "POST", "/node/leaves_many", {"node_ids": [second]}),
        ):
            assert reply.status == 401
            assert json.loads(reply.body)["message"] == "[401]: root_id not valid at timestamp"
        assert self.ask(public, "GET", f"/node/{A}/root").status == 200

    def test_no_edits(self, public: World) -> None:
        reply = self.ask(public, "POST", "/undo", {"operation_id": 1})
        assert reply.status == 401
        assert "No edits allowed" in json.loads(reply.body)["message"]


class TestRepairs:
    """What strict mode answers with a 500, the other mode answers usefully."""

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("POST", "/roots_binary", b"123"),
            ("POST", "/roots", b"{not json"),
            ("POST", "/roots", {"ids": [1]}),
            ("POST", "/roots", {"node_ids": [[1]]}),
            ("POST", "/roots", {"node_ids": [2**70]}),
            ("POST", "/roots", {"node_ids": ["x"]}),
            ("POST", "/merge", [[1, 2]]),
            ("POST", "/split", {"sources": []}),
            ("POST", "/graph/find_path", "nonsense"),
            ("GET", "/node/abc/leaves", b""),
            ("GET", "/valid_nodes", b""),
        ],
    )
    def test_malformed_requests(self, world: World, method: str, path: str, body: Any) -> None:
        assert ask(world, method, path, body).status == 400
        strict = ask(world, method, path, body, strict=True)
        assert strict.status == 500
        assert json.loads(strict.body)["traceback"]

    def test_shared_parts_of_a_tree_belong_to_every_root(self, world: World) -> None:
        for a, b in ((supervoxel(0, 0), supervoxel(0, 1)), (A, B), (B, C), (C, supervoxel(3, 0))):
            world.graph.merge(a, b, time_ms=0)
        former, new = world.graph.operations[3].roots[0], world.graph.operations[4].roots[0]
        body = {"node_ids": [new, former]}
        found = read(ask(world, "POST", "/leaves_many", body))
        assert found == {str(root): world.graph.leaves(root).tolist() for root in (former, new)}
        strict = read(ask(world, "POST", "/leaves_many", body, strict=True))
        assert strict[str(former)] == found[str(former)]
        assert set(strict[str(new)]) < set(found[str(new)])

    def test_unknown_ids_are_named(self, world: World) -> None:
        known = int(world.graph.root_ids()[0])
        reply = ask(world, "POST", "/root_timestamps", {"node_ids": [known, known + 10**6]})
        assert reply.status == 404
        assert str(known + 10**6) in json.loads(reply.body)["message"]

    def test_a_graph_without_edits_has_an_oldest_time(self, world: World) -> None:
        assert read(ask(world, "GET", "/oldest_timestamp")) == {"iso": "2020-09-13 12:26:40+00:00"}
        assert ask(world, "GET", "/oldest_timestamp", strict=True).status == 500


class TestPrices:
    def test_a_look_up_costs_by_distinct_id(self, world: World) -> None:
        def price(ids: list[int], **query: str) -> float:
            return ask(world, "POST", "/roots", {"node_ids": ids}, query=query).price - costs.REQUEST

        assert price([A]) == pytest.approx(costs.ROOT_LOOKUP_PER_ID)
        assert price([A, A, B] * 50) == pytest.approx(2 * costs.ROOT_LOOKUP_PER_ID)
        assert price([A], stop_layer="2") == pytest.approx(costs.ROOT_LOOKUP_PER_ID / 4)

    def test_the_single_route_waits_for_an_unknown_id(self, world: World) -> None:
        assert ask(world, "GET", "/node/72057594037999999/root").price >= costs.ROOT_NOT_FOUND


def test_ids_beyond_63_bits_and_as_text(world: World) -> None:
    root = int(world.graph.roots([A], NEVER)[0])
    asked = {"node_ids": [2**64 - 1, A, str(A)]}
    assert read(ask(world, "POST", "/roots", asked)) == {"root_ids": [2**64 - 1, root, root]}
    as_text = read(ask(world, "POST", "/roots", asked, query={"int64_as_str": "true"}))
    assert as_text == {"root_ids": [str(2**64 - 1), str(root), str(root)]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_caveclient_edits_a_sandbox(world: World) -> None:
    """The unmodified client merges, splits and undoes, and sees what it did."""
    caveclient = pytest.importorskip("caveclient")
    with Sandbox(replace(world)) as sandbox:
        client = caveclient.CAVEclient(
            "lattice", server_address=sandbox.url, auth_token=sandbox.token, write_server_cache=False
        )
        graph = client.chunkedgraph
        merged = graph.do_merge([A, B], [centre_nm(0), centre_nm(1)], resolution=(1, 1, 1))
        (root,) = merged["new_root_ids"]
        assert graph.get_root_id(A) == graph.get_root_id(B) == root
        done = graph.execute_split([centre_nm(0)], [centre_nm(1)], root, source_supervoxels=[A], sink_supervoxels=[B])
        assert len(done[1]) == 2
        assert graph.get_root_id(A) != graph.get_root_id(B)
        undone = graph.undo_operation(done[0])
        assert graph.get_root_id(A) == undone["new_root_ids"][0]
        log = graph.get_tabular_change_log(undone["new_root_ids"][0], filtered=False)
        assert next(iter(log.values()))["is_merge"].tolist() == [True, False, True]
