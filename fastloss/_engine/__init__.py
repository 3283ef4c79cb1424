"""The machine under the families: policy (arrays, launch, cache) over primitives (jit, vector)."""
