"""The energy counter in gpu_metrics, a binary attribute that the kernel documents by its header alone.

Layouts: struct gpu_metrics_v1_4 to v1_8 in drivers/gpu/drm/amd/include/kgd_pp_interface.h, in which the unit of
`energy_accumulator` stands: 2^-16 J (15.259 µJ). Instinct cards of the MI300 family and later have them. In the layouts
before, the header gives the field no unit and its meaning differs between cards; from v1_9 on, the table has no fixed
layout. Neither is read.
"""

from __future__ import annotations

import struct

_HEADER = struct.Struct("<HBB")  # structure_size, format_revision, content_revision
_ACCUMULATOR = struct.Struct("<Q")
_UNKNOWN = 2**64 - 1  # the driver fills a table with ones before it writes what the firmware told (smu_cmn.c)
_LARGEST = 2**63 - 1

# (format, content) -> offset of energy_accumulator, and the sizes the structure had. A v1_6 that some kernels had for a
# short time was laid out otherwise, and v1_8 was lengthened at its end; the size tells which one it is.
_LAYOUTS: dict[tuple[int, int], tuple[int, tuple[int, ...]]] = {
    (1, 4): (24, (288,)),
    (1, 5): (88, (360,)),
    (1, 6): (16, (1_664,)),
    (1, 7): (24, (2_208,)),
    (1, 8): (24, (3_360, 3_872)),
}


def energy_microjoules(data: bytes) -> int | str:
    """The energy a card has used since its firmware was loaded, or the reason why that is not told.

    Whole microjoules, rounded down: 10^6 / 2^16 is 15625 / 1024.
    """
    if len(data) < _HEADER.size:
        return "gpu_metrics is too short"
    size, layout, content = _HEADER.unpack_from(data)
    version = f"gpu_metrics v{layout}_{content}"
    known = _LAYOUTS.get((layout, content))
    if known is None:
        return f"{version} has no energy counter of a known unit"
    offset, sizes = known
    if size not in sizes or len(data) < size:
        return f"{version} has an unknown size"
    (steps,) = _ACCUMULATOR.unpack_from(data, offset)
    if steps == _UNKNOWN:
        return f"{version} leaves the energy open"
    value = int(steps) * 15_625 // 1_024
    return value if value <= _LARGEST else "not understood"
