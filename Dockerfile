# The commands in a container, on a CPU; docs/running.md shows how it is used.
FROM python:3.12-slim

# Where torch comes from: a CUDA build has another index, as https://download.pytorch.org/whl/cu130.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=hub

COPY pyproject.toml README.md LICENSE /source/
COPY configs /source/configs
COPY src /source/src
# torchvision is for EXTRAS=litdata: from another index it would not fit torch.
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" 'torch>=2.11,<2.14' torchaudio torchvision \
 && pip install --no-cache-dir "/source[$EXTRAS]" \
 && useradd --create-home --uid 1000 sashimi \
 && install -d -o sashimi /work

USER sashimi
WORKDIR /work
# Also for another user of `docker run --user`, who has no home.
ENV NUMBA_CACHE_DIR=/tmp/numba MPLCONFIGDIR=/tmp/matplotlib PYTHONUNBUFFERED=1
ENTRYPOINT ["stereo-sashimi"]
CMD ["--help"]
