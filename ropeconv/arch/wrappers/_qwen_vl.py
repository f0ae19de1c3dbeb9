"""What Qwen's vision-language checkpoints have alike.

Their rotation has a position each for time, height and width. Text has the same in all three, and
then every pair turns as in the plain rotation, whatever share of the pairs each of them gets.
"""

from __future__ import annotations

from ropeconv.arch.wrapper import PLACES, VISUAL

PARTS = {"vision": VISUAL}
KEYS = frozenset(
    {
        "image_token_id",
        "video_token_id",
        "vision_start_token_id",
        "vision_end_token_id",
        "vision_token_id",
    }
)
MROPE = frozenset({"mrope_section", "mrope_interleaved"})
ROPE_TYPES = {"mrope": "default"}
# Qwen2-VL and 2.5-VL come with the text model's tensors and keys where a plain checkpoint has them
PLAIN_PLACES = {**PLACES, "model.": "model."}
# of both text classes, where Qwen2's has others or the family wants them stated
QWEN2_DEFAULTS = {
    "rope_theta": 1_000_000.0,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "num_key_value_heads": 8,
    "max_window_layers": 80,
    "max_position_embeddings": 32768,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
}
