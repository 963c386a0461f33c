def sinkhorn_divergence(*a, **k):
    raise RuntimeError
