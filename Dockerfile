# One image with all of headrace: API, worker, operator, command line. `docker run IMAGE api`, `… worker --app …`.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
RUN python -m venv /opt/headrace
ENV PATH=/opt/headrace/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements-image.lock /src/
RUN pip install --require-hashes --requirement /src/requirements-image.lock
COPY pyproject.toml README.md LICENSE /src/
COPY worker /src/worker
COPY api /src/api
COPY operator /src/operator
COPY cli /src/cli
RUN pip install --no-deps /src

FROM ${BASE}
COPY --from=build /opt/headrace /opt/headrace
COPY examples /app/examples
ENV PATH=/opt/headrace/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /app
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
ENTRYPOINT ["headrace"]
CMD ["--help"]
