"""Denoising diffusion: schedule, denoiser, samplers and guidance, composed rather than configured."""

from seqdyn._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Denoiser": "denoiser",
        "NoiseSchedule": "schedule",
        "QuantileGuidance": "guidance",
        "SquareGuidance": "guidance",
        "ddim": "samplers",
        "ddpm": "samplers",
        "denoiser": "denoiser",
        "guidance": "guidance",
        "samplers": "samplers",
        "schedule": "schedule",
    },
)
