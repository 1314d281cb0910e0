"""What models of JAX and PyTorch share: samples dealt to ranks, Kronecker factors, modes of products."""
