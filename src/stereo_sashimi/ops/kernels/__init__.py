"""Ways to compute the convolution kernel K_l = 2 Re(C A_bar^l B_bar) of a `Discrete`; `s4_response.py` chooses one.

krylov.py  two-level products, the fast path; also carries states across segments
cauchy.py  the generating function of the S4 paper, in blocks: the readable reference
keops.py   the same by KeOps' online reduction, where pykeops is installed
triton.py  the same by fused GPU programs (triton_programs.py), on a CUDA device
"""
