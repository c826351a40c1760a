# One static binary on an empty image, run by nobody in particular. Compose files: localstack/.
#
#   docker build -t aquifer .
#   docker run -p 127.0.0.1:9092:9092 -v aquifer:/data aquifer
#   docker run aquifer agent --metadata HOST:9340 --store s3://BUCKET/PREFIX --advertise HOST:9092

FROM rust:1.95-slim-bookworm AS build
# The C of dependencies (TLS, allocator, codecs) is built against musl too.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates cmake make musl-tools perl
WORKDIR /aquifer
COPY . .
# .cargo/config.toml comes along: it says how the allocator keeps memory.
RUN set -eu; target=$(uname -m)-unknown-linux-musl; \
    rustup target add $target; \
    cargo build --profile dist --locked --package aquifer-agent --bin aquifer --target $target; \
    mkdir -p /image/data /image/tmp /image/etc/ssl/certs; \
    strip --strip-debug -o /image/aquifer target/$target/dist/aquifer; \
    cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/; \
    chmod 1777 /image/tmp; \
    chown 65532:65532 /image/data

FROM scratch
LABEL org.opencontainers.image.title="Aquifer" \
      org.opencontainers.image.description="A Kafka broker without disks" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /image /
ENV PATH=/ \
    AQUIFER_DATA=/data \
    AQUIFER_KAFKA=0.0.0.0:9092 \
    AQUIFER_HTTP=0.0.0.0:9644 \
    AQUIFER_LISTEN=0.0.0.0:9340
USER 65532:65532
# Only metadata nodes and `up` write here; agents hold nothing.
VOLUME /data
# Kafka, metadata nodes, health and metrics.
EXPOSE 9092 9340 9644
# Ready means that clients should be sent here. A metadata node alone has no such listener: see
# localstack/compose.minio.yaml for what to ask it.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s CMD ["aquifer", "health", "--timeout", "2s"]
# Ends by draining, which takes five seconds behind a load balancer.
STOPSIGNAL SIGTERM
ENTRYPOINT ["aquifer"]
# Clients on this host find it; others need an address of theirs.
CMD ["up", "--advertise", "127.0.0.1:9092"]
