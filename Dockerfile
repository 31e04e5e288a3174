# The control plane with its embedded database server. Agents and data live outside: mount /data, pass the settings.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY requirements-run.lock ./
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes -r requirements-run.lock

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /data controlplane && install -d -o controlplane -m 0700 /data
COPY --from=build /venv /venv
COPY run.py /app/
COPY controlplane /app/controlplane
COPY handlers /app/handlers
COPY static /app/static
USER controlplane
WORKDIR /app
ENV HTTP_ADDRESS=0.0.0.0 DATA_DIR=/data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s CMD ["/venv/bin/python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
ENTRYPOINT ["/venv/bin/python", "/app/run.py"]
CMD ["serve"]
