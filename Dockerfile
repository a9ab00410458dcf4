# syntax=docker/dockerfile:1
# The operator's image: Python, the pinned dependencies of requirements/operator.txt, and fairlead. No shell is needed, no
# compiler is left, nothing is written at run time.
#
# Tag and digest of the base were taken from public repositories that pin it (several independent ones agree); whoever
# updates the tag updates the digest: docker buildx imagetools inspect python:<tag>
ARG PYTHON=python:3.11.16-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv --without-pip /opt/fairlead
WORKDIR /build
# Dependencies first: they change less often than the code, so the layer is kept.
COPY requirements/operator.txt requirements/operator.txt
RUN pip --python /opt/fairlead/bin/python install --require-hashes --only-binary=:all: -r requirements/operator.txt
# The build backend, pinned as well. Only the operator is copied: the wheel has neither simulator nor local cluster.
COPY requirements/dev.txt requirements/dev.txt
RUN sed -n '/^setuptools==/,/[^\\]$/p' requirements/dev.txt > requirements/backend.txt \
    && pip install --require-hashes --only-binary=:all: -r requirements/backend.txt
COPY pyproject.toml README.md LICENSE ./
COPY operator/fairlead operator/fairlead
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && pip --python /opt/fairlead/bin/python install --no-deps dist/fairlead-*.whl \
    && rm -f /opt/fairlead/bin/fairlead-sim /opt/fairlead/bin/fairlead-cluster \
    && /opt/fairlead/bin/python -m compileall -q /opt/fairlead/lib

FROM ${PYTHON}
LABEL org.opencontainers.image.title="fairlead" \
      org.opencontainers.image.description="Kubernetes operator that turns an LLMDeployment into a served model" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/fairlead /opt/fairlead
ENV PATH=/opt/fairlead/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# Numeric, so that `runAsNonRoot` can be checked without looking into the image.
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["python", "-m", "fairlead"]
CMD ["run"]
