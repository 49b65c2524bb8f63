# One image with all of headrace: API, worker, operator, command line. `docker run IMAGE api`, `… worker --app …`.
# It builds with docker, podman and buildah. BASE needs python3 (3.11 to 3.13) with venv. RUNTIME needs that same
# interpreter and no more: no pip, no shell.
ARG BASE=docker.io/library/python:3.13-slim
ARG RUNTIME=${BASE}

FROM ${BASE} AS build
# pip and what builds the wheel have an environment of their own, which stays in this stage.
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/headrace
COPY requirements-build.lock requirements-image.lock deploy/lean.py /src/
RUN /opt/build/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r /src/requirements-build.lock \
    && /opt/build/bin/pip --python /opt/headrace/bin/python install --no-cache-dir --no-compile \
        --require-hashes --only-binary :all: -r /src/requirements-image.lock \
    && python3 /src/lean.py /opt/headrace
COPY pyproject.toml README.md LICENSE /src/
COPY worker /src/worker
COPY api /src/api
COPY operator /src/operator
COPY cli /src/cli
COPY examples /own/app/examples
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /dist /src \
    && /opt/build/bin/pip --python /opt/headrace/bin/python install --no-cache-dir --no-compile --no-deps \
        --prefix /own/opt/headrace /dist/*.whl
# Compiled here, for the root is read-only where it runs; by hash, so that no date matters. Readable by any user, since
# OpenShift chooses one.
RUN python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/headrace/lib \
    && python3 -m compileall -q --invalidation-mode unchecked-hash -s /own -p / /own \
    && chmod -R a+rX,go-w /opt/headrace /own

FROM ${RUNTIME}
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="headrace" \
      org.opencontainers.image.description="A Kubernetes-native task queue: API, worker, operator, command line" \
      org.opencontainers.image.source="https://github.com/headrace/headrace" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# What we depend on changes seldom, so it is a layer of its own.
COPY --from=build /opt/headrace /opt/headrace
COPY --from=build /own /
ENV PATH=/opt/headrace/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /app
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
EXPOSE 8080 9464
ENTRYPOINT ["headrace"]
CMD ["--help"]
