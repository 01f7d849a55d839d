"""The plugin's records and the runtime's profile to operators."""

from __future__ import annotations

import pytest

from edgekd.profiles.emulation.counts import Region, assign, classes, merge, read_runs

FMLA, LOAD, BRANCH = 0x4F821020, 0x3DC00020, 0x54FFFFC1
RECORDS = [
    f"B 7 {FMLA:x} {LOAD:x} {BRANCH:x}\n",
    "R clock 100 20 30 5 10 2 0 0 7:4\n",
    f"B 9 {LOAD:x}\n",
    "R end 1 0 1 0 0 0 0 0 7:1 9:3\n",
    "R end 2 0 0 0 0 0 0 0 9:2\n",
]


def test_records_to_regions_of_two_runs():
    first, second = read_runs(RECORDS)
    assert [region.kind for region in first] == ["clock", "end"]
    assert first[0].accesses == 120
    assert first[0].lines == ((30, 5), (10, 2), (0, 0))
    assert first[0].instructions == 12
    assert classes(first[1]) == {"simd-fma": 1, "simd-load": 4, "branch": 1}
    assert second[0].instructions == 2


def test_one_block_translated_twice_is_one_block():
    twice = [RECORDS[0], RECORDS[0].replace("B 7", "B 8"), "R end 0 0 0 0 0 0 0 0 7:4 8:6\n"]
    ((region,),) = read_runs(twice)
    assert region.blocks == {(FMLA, LOAD, BRANCH): 10}


@pytest.mark.parametrize("line", ["X 1\n", "qemu: something else\n"])
def test_what_the_plugin_does_not_write_is_refused(line):
    with pytest.raises(ValueError, match="not a record"):
        read_runs([line])


def test_a_record_of_an_unknown_block_is_refused():
    with pytest.raises(KeyError):
        read_runs(["R end 0 0 0 0 0 0 0 0 3:1\n"])


def test_merging_adds_everything_up():
    first, _ = read_runs(RECORDS)
    whole = merge(first)
    assert whole.instructions == 12 + 6
    assert whole.accesses == 121
    assert whole.lines == ((31, 5), (10, 2), (0, 0))


def region(instructions: int) -> Region:
    return Region("clock", 0, ((0, 0),) * 3, {(FMLA,): instructions})


def event(name: str, op: str, **facts):
    return {"cat": "Node", "name": f"{name}_kernel_time", "args": {"op_name": op, **facts}}


CONV = event(
    "/stem/Conv_token_3", "FusedConv", activation_size="100", parameter_size="40", output_size="60",
    input_type_shape=[{"float": [1, 8, 6, 6]}, {"float": [16, 8, 3, 3]}, {"float": [16]}],
    output_type_shape=[{"float": [1, 16, 6, 6]}],
)  # fmt: skip


def test_nodes_are_found_between_the_gaps():
    # session, executor, gap | conv | gap | gemm | gap, end: what lies between is small.
    regions = [region(n) for n in (30, 5, 9000, 12, 700, 9, 40)]
    found = assign(regions, [CONV, event("head", "Gemm")])
    assert [(each.node, each.region.instructions) for each in found] == [
        ("/stem/Conv_token_3", 9000), ("head", 700)]  # fmt: skip
    conv = found[0]
    assert (conv.family, conv.macs, conv.bytes) == ("conv-dense-3x3", 16 * 36 * 8 * 9, 200)


def test_earlier_runs_in_the_profile_do_not_shift_the_nodes():
    regions = [region(n) for n in (3, 9000, 12, 700, 9)]
    once = [CONV, event("head", "Gemm")]
    assert [each.node for each in assign(regions, once + once)] == ["/stem/Conv_token_3", "head"]


def test_the_file_tells_what_a_repacked_kernel_hides():
    hidden = event("/stem/Conv_token_3", "QLinearConv", output_type_shape=[{"uint8": [1, 6, 6, 16]}])
    found = assign([region(10), region(900), region(10)], [hidden], {"/stem/Conv": ("conv-first", 123)})
    assert (found[0].family, found[0].macs) == ("conv-first", 123)


def test_a_loop_is_not_taken_apart():
    again = [event("a", "Add"), event("a", "Add"), event("b", "Add")]
    assert assign([region(10)] * 9, again) == ()
    assert assign([region(10)] * 3, [event("a", "Add"), event("b", "Add")]) == ()


@pytest.mark.parametrize(
    ("weights", "source", "output", "expected"),
    [
        ([32, 3, 3, 3], [1, 3, 224, 224], [1, 32, 112, 112], ("conv-first", 32 * 112 * 112 * 27)),
        ([32, 1, 3, 3], [1, 32, 112, 112], [1, 32, 112, 112], ("conv-depthwise", 32 * 112 * 112 * 9)),
        ([16, 32, 1, 1], [1, 32, 112, 112], [1, 16, 112, 112], ("conv-1x1", 16 * 112 * 112 * 32)),
        ([64, 32, 3, 3], [1, 32, 56, 56], [1, 64, 28, 28], ("conv-dense-other", 64 * 28 * 28 * 288)),
        ([32, 8, 3, 3], [1, 32, 28, 28], [1, 32, 28, 28], ("conv-grouped", 32 * 28 * 28 * 72)),
    ],
)
def test_families_of_convolutions(weights, source, output, expected):
    shapes = [{"float": source}, {"float": weights}]
    made = event("c", "Conv", input_type_shape=shapes, output_type_shape=[{"float": output}])
    (found,) = assign([region(1), region(9), region(1)], [made])
    assert (found.family, found.macs) == expected


def test_products_count_what_is_summed_over():
    shapes = [{"float": [1, 197, 192]}, {"float": [192, 576]}]
    made = event("q", "MatMul", input_type_shape=shapes, output_type_shape=[{"float": [1, 197, 576]}])
    (found,) = assign([region(1), region(9), region(1)], [made])
    assert (found.family, found.macs) == ("matmul-tokens", 197 * 192 * 576)
