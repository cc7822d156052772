# Runs the command line: docker build -t icl-select . && docker run --rm -v "$PWD:/data" icl-select demo --output /data/demo
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints-cpu.txt ./
COPY icl_select icl_select
COPY eval eval
COPY configs configs
RUN pip install --no-cache-dir build uv && python -m build --wheel --outdir /dist .

FROM python:3.12-slim
# Compiled loops are cached where the user may write; one BLAS thread a process.
ENV PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 ICS_CACHE_DIR=/data/.icl-select NUMBA_CACHE_DIR=/tmp/numba OMP_NUM_THREADS=1
COPY --from=build /dist /dist
COPY constraints-cpu.txt /dist/
# The CPU build of torch; for a GPU image, leave the backend out and start from a CUDA base.
RUN pip install --no-cache-dir uv \
 && UV_TORCH_BACKEND=cpu uv pip install --system --no-cache -c /dist/constraints-cpu.txt "$(ls /dist/*.whl)[demo]" \
 && rm -rf /dist \
 && useradd --create-home icl
USER icl
WORKDIR /data
ENTRYPOINT ["icl-select"]
CMD ["--help"]
