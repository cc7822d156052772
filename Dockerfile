# Runs the command line and the service:
#   docker build -t icl-select .
#   docker run --rm -v "$PWD:/data" icl-select demo --output /data/demo
#   docker run --rm -v icl:/data icl-select keys create me --scope admin
#   docker run -p 8765:8765 -v icl:/data icl-select serve --host 0.0.0.0
# scripts/docker_steps.sh does the same where there is no docker.
FROM python:3.12-slim AS build
WORKDIR /src
# The CPU build of torch; for a GPU, another backend of uv's, and no constraints. The last stage cannot write bytecode.
ENV VIRTUAL_ENV=/opt/icl-select UV_TORCH_BACKEND=cpu UV_COMPILE_BYTECODE=1
COPY pyproject.toml README.md LICENSE constraints-cpu.txt ./
COPY icl_select icl_select
COPY eval eval
COPY service service
COPY configs configs
RUN pip install --no-cache-dir 'build>=1.2,<2' 'uv>=0.9,<1' \
 && python -m build --wheel
RUN python -m venv "$VIRTUAL_ENV" \
 && set -- dist/*.whl \
 && uv pip install -c constraints-cpu.txt "${1}[demo,service,postgres]"

FROM python:3.12-slim
# Compiled loops are cached where the user may write; one BLAS thread a process.
ENV PATH=/opt/icl-select/bin:$PATH PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 ICS_CACHE_DIR=/data/.icl-select \
    ICS_SERVICE_DATA_DIR=/data NUMBA_CACHE_DIR=/tmp/numba OMP_NUM_THREADS=1
RUN useradd --uid 1000 --create-home icl \
 && install -d -o icl -g icl /data
# The environment names its own path, and the interpreter's: both are the same here.
COPY --from=build /opt/icl-select /opt/icl-select
USER 1000
WORKDIR /data
VOLUME /data
EXPOSE 8765
# For serve; other commands can do without (docker run --no-healthcheck). http.client, as no proxy is to be asked.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", "\
import http.client, os, sys; \
c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('ICS_SERVICE_PORT', '8765')), timeout=4); \
c.request('GET', '/health'); \
sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["icl-select"]
CMD ["--help"]
