"""Triton kernels: under the interpreter, compiled without a device, and on a GPU."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from longheads import kernels, selection
from longheads.attention import Pages, Plan, attend_chunk_major
from longheads.kernel_plan import Survey, pair_tiles, survey, unions
from longheads.rotary import Rotation

HERE = Path(__file__).parent
TOLERANCE = {"float16": 2e-3, "bfloat16": 1.6e-2}
EXACT = 1e-5

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not in this environment"
)


def interpreted(*arguments):
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    script = HERE / "kernels_under_interpreter.py"
    done = subprocess.run(
        [sys.executable, script, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def too_far(found):
    allowed = {name: TOLERANCE.get(name.rpartition(" ")[2], EXACT) for name in found}
    return {name: far for name, far in found.items() if not far <= allowed[name]}


@needs_triton
def test_some_kernels_equal_the_torch_path():
    found = interpreted("few")
    assert len(found) == 7
    assert not too_far(found)


@needs_triton
@pytest.mark.slow
def test_all_kernels_equal_the_torch_path():
    found = interpreted()
    assert len(found) > 40
    assert not too_far(found)


def draw_plan(seed, heads=3, tokens=45, slots=4, num_pages=11):
    generator = torch.Generator().manual_seed(seed)
    page = torch.rand(heads, tokens, num_pages, generator=generator).argsort(-1)[..., :slots]
    page[:, :20, 1] = -1
    page[1] += 3
    page[2] = -1
    return page


@pytest.mark.parametrize("block", [16, 64])
def test_unions_list_every_page_of_a_block_once(block):
    page = draw_plan(0)
    listed = unions(page, block, survey(page, block).span)
    assert listed.counts.shape == (3, -(-45 // block))
    for head in range(3):
        for number in range(listed.counts.shape[1]):
            read = page[head, number * block : (number + 1) * block].unique()
            count = int(listed.counts[head, number])
            assert listed.pages[head, number, :count].tolist() == read[read >= 0].tolist()


@pytest.mark.parametrize("rows", [1, 16, 1000])
def test_pair_tiles_hold_every_pair_once_beside_its_page(rows):
    page = draw_plan(1)
    tiles = pair_tiles(page, rows, num_pages=14)
    found = {}
    for start, stop, number in zip(
        tiles.start.tolist(), tiles.stop.tolist(), tiles.page.tolist(), strict=True
    ):
        if number < 14:
            for pair in tiles.pairs[start : min(stop, start + rows)].tolist():
                assert pair not in found
                found[pair] = number
    flat = page.flatten().tolist()
    assert found == {pair: number for pair, number in enumerate(flat) if number >= 0}


def test_the_survey_tells_shared_pages_from_scattered_ones():
    same = torch.arange(4).expand(2, 64, 4) + 5
    assert survey(same, 16) == Survey(span=4, reads=4)
    scattered = draw_plan(2, heads=3, tokens=64, slots=4, num_pages=500)[:1]
    assert survey(scattered, 16).reads > 40


def test_the_survey_takes_fewer_tokens_than_a_block_and_no_page_at_all():
    assert survey(torch.full((2, 3, 4), -1), 16) == Survey(span=1, reads=0)
    assert survey(torch.tensor([[[-1, 6]]]), 16) == Survey(span=1, reads=1)


def test_numbers_of_pages_are_as_narrow_as_they_can_be():
    assert kernels.narrow(2**15 - 1) == torch.int16
    assert kernels.narrow(2**15) == torch.int32


def test_the_kernels_are_not_for_a_cpu():
    pages = Pages(torch.zeros(1, 4, 8), torch.zeros(1, 4, 8))
    assert not kernels.available(torch.zeros(1, 1, 8), pages)


def test_the_module_can_be_imported_without_triton():
    code = "import sys; sys.modules['triton'] = None; from longheads import kernels"
    subprocess.run([sys.executable, "-c", code], check=True)


SHARED_MEMORY = {80: 163 << 10, 86: 99 << 10, 90: 227 << 10}
"""Bytes that a program may hold, by compute capability. Source: CUDA programming guide, table of
technical specifications."""


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("capability", SHARED_MEMORY)
@pytest.mark.parametrize("width", [128, 256])
@pytest.mark.parametrize("name", ["union_kernel", "pair_kernel", "decode_kernel"])
def test_kernels_compile_for_real_devices(name, width, capability, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    dtype = torch.bfloat16
    if name == "decode_kernel":
        tiles = kernels._decode_tiles(1, dtype, width, 256)
    else:
        tiles = kernels.prefill_tiles(dtype, width, 256)
    compiled = compile_for(capability, name, width, tiles)
    assert compiled.metadata.shared <= SHARED_MEMORY[capability]


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("width", [128, 256])
def test_windows_of_hundreds_of_slots_do_not_spill_registers(
    width, capability, tmp_path, monkeypatch
):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    tiles = kernels.prefill_tiles(torch.bfloat16, width, 256)
    compiled = compile_for(capability, "union_kernel", width, tiles, slots=256)
    assert stack_bytes(compiled, capability, tmp_path) <= STACK


STACK = 160
"""Bytes of registers that one thread may put aside; a list of 256 slots took 3,600."""


def stack_bytes(compiled, capability, folder):
    """What the assembler says that a thread keeps outside of its registers."""
    from triton import knobs

    code = folder / "kernel.ptx"
    code.write_text(compiled.asm["ptx"])
    target = f"sm_{capability}{'a' if capability >= 90 else ''}"
    command = [knobs.nvidia.ptxas.path, "-v", f"--gpu-name={target}", code, "-o", os.devnull]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(re.search(r"(\d+) bytes stack frame", done.stdout + done.stderr)[1])


def compile_for(capability, name, width, tiles, slots=16):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from longheads import kernel_code

    kernel = getattr(kernel_code, name)
    constants = {"LENGTH": 256, "WIDTH": width, "TURNED": width, "D": width, "K": slots}
    constants |= {"CAPPED": True, "HAS_FIRST": True, "M": tiles.rows, "N": tiles.keys}
    types = dict.fromkeys(("paired", "key", "value", "answer"), "*bf16")
    types |= dict.fromkeys(("part", "lse2", "turns"), "*fp32")
    numbers = ("page", "first", "last", "pair", "start", "stop", "tile_page")
    types |= dict.fromkeys(numbers, "*i64") | dict.fromkeys(("union", "count"), "*i32")
    if name == "union_kernel":
        types["page"] = "*i16"
    types |= {"scale": "fp32", "softcap": "fp32"} | dict.fromkeys(constants, "constexpr")
    signature = {arg: types.get(arg, "i32") for arg in kernel.arg_names}
    aligned = ("key_page", "key_step", "value_page", "value_step")
    source = ASTSource(
        kernel,
        signature,
        constexprs={(i,): constants[a] for i, a in enumerate(kernel.arg_names) if a in constants},
        attrs={
            (i,): [["tt.divisibility", 16]]
            for i, (arg, kind) in enumerate(signature.items())
            if kind.startswith("*") or arg in aligned
        },
    )
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


# on a GPU, at real sizes

TOKENS, LENGTH, SLOTS, WIDTH = 8192, 256, 16, 128
ON_GPU = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2, torch.float32: 1e-5}


def half_split(query, key, cos, sin):
    def turn(x):
        left, right = x.chunk(2, dim=-1)
        return x * cos.unsqueeze(1) + torch.cat([-right, left], -1) * sin.unsqueeze(1)

    return turn(query), turn(key)


def gpu_problem(dtype, width=WIDTH, heads=4, kv_heads=2):
    """Queries behind the window, each head with random choices; everything on the GPU."""
    torch.manual_seed(0)
    device = torch.device("cuda")
    chunks = TOKENS // LENGTH
    draw = torch.randn(2, kv_heads * chunks, LENGTH, width, device=device).to(dtype)
    position = torch.arange(SLOTS * LENGTH, TOKENS, device=device).unsqueeze(0)
    own = position // LENGTH
    rules = selection.Rules(SLOTS)
    scores = torch.rand(1, heads, own.shape[1], chunks, device=device)
    chosen = selection.fill_slots(rules, selection.free_scores(rules, scores, own), own)[0]
    kv_head = torch.arange(heads, device=device) // (heads // kv_heads)
    page = chosen + (kv_head * chunks).view(-1, 1, 1)
    last = torch.full(page.shape[1:], LENGTH - 1, device=device)
    last[:, -1] = position[0] % LENGTH
    frequency = 10000.0 ** (-torch.arange(0, width, 2, device=device) / width)
    slot = torch.arange(SLOTS - 1, -1, -1, device=device) * LENGTH
    angle = (slot[:, None] * frequency).repeat(1, 2)
    turns = torch.cat([angle.cos(), angle.sin()], dim=-1)
    query = torch.randn(heads, own.shape[1], width, device=device).to(dtype)
    plan = Plan(page, None, last, (SLOTS - 1,))
    return query, Pages(*draw), plan, Rotation(half_split, turns, turns[:0])


def in_float64(query, pages, plan, rotation, **rules):
    wide = Pages(pages.keys.double(), pages.values.double())
    return attend_chunk_major(query.double(), wide, plan, rotation, **rules)


def relative(found, expected):
    torch.cuda.synchronize()
    assert found.isfinite().all()
    return float((found.double() - expected).abs().max() / expected.abs().max())


@pytest.mark.gpu
@pytest.mark.parametrize("way", ["unions", "pairs", "auto"])
@pytest.mark.parametrize("width", [64, 80, 128, 256])
@pytest.mark.parametrize("dtype", ON_GPU, ids=str)
def test_prefill_on_a_gpu_equals_float64(dtype, width, way):
    query, pages, plan, rotation = gpu_problem(dtype, width)
    assert kernels.available(query, pages)
    rules = {"scale": width**-0.5, "softcap": 30.0 if width == 256 else None}
    found = kernels.attend_prefill(query, pages, plan, rotation, **rules, way=way)
    assert relative(found, in_float64(query, pages, plan, rotation, **rules)) < ON_GPU[dtype]


@pytest.mark.gpu
@pytest.mark.parametrize("width", [80, 128, 256])
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("dtype", ON_GPU, ids=str)
def test_decode_on_a_gpu_equals_float64(dtype, rows, width):
    _, pages, plan, rotation = gpu_problem(dtype, width)
    page = plan.pages[:, -1]  # of the last token
    many = torch.randn(1, len(page), rows, width, device="cuda").to(dtype)
    found = kernels.attend_decode(
        many,
        pages,
        page.unsqueeze(0),
        rotation,
        first_BK=None,
        last_BK=plan.last[-1:],
        scale=width**-0.5,
    )
    for row in range(rows):
        one = Plan(page.unsqueeze(1), None, plan.last[-1:], plan.masked)
        expected = in_float64(many[0, :, row : row + 1], pages, one, rotation, scale=width**-0.5)
        assert relative(found[0, :, row : row + 1], expected) < ON_GPU[dtype]
