"""PyTorch: any ``nn.Module``, read eagerly while it runs."""

from layertap.runtimes.torch.attach import attach
from layertap.runtimes.torch.session import TorchSession, open

__all__ = ["TorchSession", "attach", "open"]
