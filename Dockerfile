# raylens in a container. On CPUs, with the bundled model:
#
#   docker build --tag raylens .
#   docker run --init --stop-timeout 60 --shm-size 512m \
#     --publish 127.0.0.1:8000:8000 --volume raylens-cache:/cache raylens
#
# To serve another model, append a Serve config, such as `configs/clip.yaml`. For NVIDIA GPUs, build
# with `--build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130` (constraints.txt has the
# libraries of CUDA 13.0) and run with `--gpus all` and `configs/gpu.yaml`. Make API keys
# (docs/operations.md) before you publish the port to other machines.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=server
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /src
COPY constraints.txt ./
# torch goes first: it is the largest layer, and what follows should not come from its index.
# pip prefers a build with a local version, such as 2.13.0+cpu, to PyPI's, which is for CUDA.
RUN python -m venv /opt/venv \
    && PIP_EXTRA_INDEX_URL="$TORCH_INDEX" pip install --no-cache-dir --constraint constraints.txt torch
COPY pyproject.toml README.md LICENSE serve_config.yaml ./
COPY deployments deployments
COPY raylens raylens
RUN pip install --no-cache-dir --constraint constraints.txt ".[$EXTRAS]"

FROM python:${PYTHON}-slim-bookworm
LABEL org.opencontainers.image.title="raylens" \
      org.opencontainers.image.description="A self-hosted image embedding service on Ray Serve." \
      org.opencontainers.image.url="https://github.com/raylens/raylens" \
      org.opencontainers.image.source="https://github.com/raylens/raylens" \
      org.opencontainers.image.documentation="https://github.com/raylens/raylens/tree/main/docs" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --create-home --uid 1000 raylens \
    && install --directory --owner raylens --group raylens /cache
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    HF_HOME=/cache/huggingface \
    XDG_CACHE_HOME=/cache
WORKDIR /home/raylens
COPY configs configs
USER 1000:1000
# Downloaded models, and what raylens exports of them.
VOLUME /cache
EXPOSE 8000
# The start may include a download and an export.
HEALTHCHECK --start-period=10m --interval=30s --timeout=35s CMD ["raylens", "health"]
ENTRYPOINT ["raylens", "serve", "--host", "0.0.0.0"]
