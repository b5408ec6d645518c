# colpipe in a container; the current folder is the user's /work, with studies, models, texts and results/:
#
#     docker build --target cpu -t colpipe .          or: --target cuda
#     docker run --rm -v "$PWD":/work colpipe doctor  with CUDA: docker run --gpus all …
#
# The steps were run one by one on Debian; no image was built from this file by its authors, and none was run on a GPU.
FROM python:3.11-slim AS source
WORKDIR /opt/colpipe
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE Snakefile ./
COPY workflow workflow
COPY config config
COPY envs envs
COPY colpipe colpipe
WORKDIR /work
ENTRYPOINT ["colpipe"]
CMD ["--help"]

FROM source AS cuda
# PyPI's torch brings CUDA's libraries; the machine brings the driver.
RUN pip install --no-cache-dir -c /opt/colpipe/envs/gpu.txt "/opt/colpipe[cluster]"

FROM source AS cpu
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
    -c /opt/colpipe/envs/cpu.txt "/opt/colpipe[cluster]"
