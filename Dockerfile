# frcnn with CUDA: torch's own wheels bring the libraries, the host brings the driver.
#   docker build -t frcnn .
#   docker run --rm --gpus all --shm-size 8g -v "$PWD:/workspace" frcnn train -e spec.txt -r results
FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    FRCNN_CACHE=/workspace/.cache

WORKDIR /opt/frcnn
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY frcnn frcnn
COPY conf conf
RUN pip install --no-cache-dir -c constraints.txt . \
    && useradd --uid 1000 --create-home frcnn

USER 1000
WORKDIR /workspace
ENTRYPOINT ["frcnn"]
CMD ["--help"]
