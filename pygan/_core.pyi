"""Native kernels. Tensors are addresses; device is -1 (CPU) or a CUDA index; stream is a cudaStream_t as an integer."""

__version__: str

def build_info() -> dict[str, object]: ...
def simd_level() -> str: ...
def best_simd_level() -> str: ...
def amd_family() -> int: ...
def set_simd_level(name: str, /) -> None: ...
def adversarial_loss_scratch(size: int, /) -> int: ...
def discriminator_loss(
    real: int,
    n_real: int,
    fake: int,
    n_fake: int,
    real_gradient: int,
    fake_gradient: int,
    scratch: int,
    loss: int,
    dtype: int,
    device: int,
    stream: int,
    threads: int,
    /,
) -> None: ...
def generator_loss(
    fake: int,
    n: int,
    saturating: bool,
    gradient: int,
    scratch: int,
    loss: int,
    dtype: int,
    device: int,
    stream: int,
    threads: int,
    /,
) -> None: ...
def dropout(
    x: int,
    y: int,
    size: int,
    first: int,
    seed: int,
    keep: float,
    dtype: int,
    device: int,
    stream: int,
    threads: int,
    /,
) -> None: ...
def momentum(
    parameters: list[int],
    velocities: list[int],
    gradients: list[int],
    copies: list[int],
    sizes: list[int],
    rates: int,
    parameter_dtype: int,
    gradient_dtype: int,
    device: int,
    stream: int,
    threads: int,
    /,
) -> None: ...
def maxout_pool(
    z: int,
    y: int,
    index: int,
    outer: int,
    units: int,
    pieces: int,
    inner: int,
    dtype: int,
    device: int,
    stream: int,
    threads: int,
    /,
) -> None: ...
def maxout_spread(
    grad: int,
    index: int,
    grad_z: int,
    outer: int,
    units: int,
    pieces: int,
    inner: int,
    dtype: int,
    device: int,
    stream: int,
    threads: int,
    /,
) -> None: ...
def maxout_grad_input(
    grad: int,
    index: int,
    weight: int,
    grad_x: int,
    batch: int,
    in_features: int,
    units: int,
    pieces: int,
    dtype: int,
    device: int,
    stream: int,
    threads: int,
    /,
) -> None: ...
def maxout_grad_weight(
    grad: int,
    index: int,
    x: int,
    grad_weight: int,
    grad_bias: int,
    batch: int,
    in_features: int,
    units: int,
    pieces: int,
    dtype: int,
    device: int,
    stream: int,
    threads: int,
    /,
) -> None: ...
def count_live(values: int, n: int, dtype: int, threads: int, /) -> int: ...
def sparse_times(
    values: int,
    n: int,
    m: int,
    matrix: int,
    row_stride: int,
    column_stride: int,
    bias: int,
    columns: int,
    out: int,
    dtype: int,
    threads: int,
    /,
) -> None: ...
def sparse_outer(values: int, n: int, m: int, x: int, columns: int, out: int, dtype: int, threads: int, /) -> None: ...

class ParzenTile:
    def __init__(
        self,
        x: int,
        samples: int,
        x_norms: int,
        sample_norms: int,
        products: int,
        rates: int,
        scale: int,
        product_unit: float,
        rows: int,
        columns: int,
        d: int,
        sigmas: int,
        stride: int,
        /,
    ) -> None: ...

def parzen_centre(
    rows: int,
    centre: int,
    scale: int,
    n: int,
    d: int,
    moved: int,
    norms: int,
    dtype: int,
    device: int,
    stream: int,
    threads: int,
    /,
) -> None: ...
def parzen_accumulate(
    tile: ParzenTile, peak: int, sum: int, dtype: int, device: int, stream: int, threads: int, /
) -> None: ...
def parzen_weights(
    tile: ParzenTile,
    grad: int,
    log_sum: int,
    mean_square: int,
    dtype: int,
    device: int,
    stream: int,
    threads: int,
    /,
) -> None: ...

# in builds with CUDA
def parzen_split(
    moved: int,
    n: int,
    d: int,
    unit: float,
    sections: int,
    low_section: int,
    halves: int,
    device: int,
    stream: int,
    threads: int,
    /,
) -> None: ...
def parzen_fused_parts(n: int, count: int, sigmas: int, device: int, /) -> int: ...
def parzen_fused(
    x: int,
    samples: int,
    rates: int,
    scale: int,
    log_sums: int,
    n: int,
    count: int,
    d: int,
    sigmas: int,
    parts: int,
    dtype: int,
    device: int,
    stream: int,
    threads: int,
    /,
) -> None: ...
