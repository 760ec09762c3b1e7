# The ML backend alone, on the CPU, as a user without privileges:
#   docker build -t pslg-sam .
#   docker run -p 9090:9090 -v pslg-state:/state -e LABEL_STUDIO_URL=... -e LABEL_STUDIO_API_KEY=... \
#       -e PSLG_BASIC_AUTH_USER=... -e PSLG_BASIC_AUTH_PASSWORD=... -e PSLG_WEBHOOK_SECRET=... pslg-sam
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# torch first and from its CPU index: PyPI's build carries several GB of CUDA libraries. As a layer of its own it is
# not installed again when the code changes.
RUN pip install --index-url https://download.pytorch.org/whl/cpu torch==2.14.1 torchvision==0.29.1

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY backend backend
COPY dataset_tools dataset_tools
COPY configs configs
RUN pip install -c constraints.txt .

RUN useradd --system --uid 10001 --create-home pslg && install -d -o pslg -g pslg /state
USER pslg
VOLUME /state
ENV PSLG_STATE_DIR=/state PSLG_HOST=0.0.0.0 PSLG_PORT=9090
EXPOSE 9090
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-m", "backend.health"]
CMD ["pslg", "serve"]
