# The ML backend alone, as a user without privileges. How to run it: docs/operations.md.
#   docker build -t pslg-sam .
#   docker build -t pslg-sam:gpu --build-arg TORCH_INDEX_URL=https://pypi.org/simple .
# The base can be pinned to what was tried: --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:<digest>, the digest
# as `docker buildx imagetools inspect python:3.11-slim-bookworm` shows it.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# Layers from what changes least to what changes most. torch first and by default from its CPU index: PyPI's build is the
# one with CUDA, several GB. What it depends on comes with the rest, under the constraints.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN pip install --no-deps --index-url "${TORCH_INDEX_URL}" torch==2.14.1 torchvision==0.29.1

# EXTRAS: names from pyproject.toml, separated by blanks ("openvino geo").
ARG EXTRAS=""
WORKDIR /app
COPY pyproject.toml constraints.txt ./
RUN python -c "import sys, tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *(line for extra in sys.argv[1:] for line in p['optional-dependencies'][extra]), sep='\n')" ${EXTRAS} > requirements.txt \
    && pip install -c constraints.txt -r requirements.txt

COPY README.md LICENSE ./
COPY backend backend
COPY dataset_tools dataset_tools
COPY configs configs
COPY docs docs
RUN pip install --no-deps .

# By number, so that the host can see that it is not root. The folders belong to it, and so do new volumes on them.
RUN useradd --system --uid 10001 --create-home pslg && install -d -o pslg -g pslg /state /weights
USER 10001
WORKDIR /state
VOLUME ["/state", "/weights"]
ENV PSLG_STATE_DIR=/state PSLG_WEIGHTS=/weights PSLG_HOST=0.0.0.0 PSLG_PORT=9090 NVIDIA_DRIVER_CAPABILITIES=compute,utility
EXPOSE 9090
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["python", "-m", "backend.health"]
CMD ["pslg", "serve"]
