# datapulse-sidecar: one binary, the four libraries that it loads, and the roots of the public CAs.
# No shell, no package manager; any uid, 65532 unless told otherwise; read-only root file system.
#
#   docker build --platform linux/amd64,linux/arm64 --tag registry.example/datapulse-sidecar:0.1.0 .
#
# Each platform is built in a base image of its own. buildah and podman take the same file.

# The version of rust-toolchain.toml (tests/charts compares them). In a release, pin it by digest.
FROM docker.io/library/rust:1.95.0-bookworm AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# pingora builds zlib-ng, which is configured by cmake.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src

# The dependencies are a layer of their own, which stays until Cargo.lock changes. The manifest names
# files of tests and benchmarks; empty ones will do.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches/shaping tests \
    && echo 'fn main() {}' | tee src/main.rs benches/proxy.rs benches/shaping/main.rs \
    && touch src/lib.rs \
    && sed -n 's/^path = "\(tests\/.*\)"$/\1/p' Cargo.toml \
       | while read -r file; do mkdir -p "$(dirname "$file")" && touch "$file"; done \
    && cargo build --release --locked

COPY src src
RUN touch src/lib.rs src/main.rs \
    && cargo build --release --locked --bin datapulse-sidecar

# What goes into the image: nothing but what the binary asks the loader for.
RUN mkdir -p /image/usr/bin /image/etc/ssl/certs /image/etc/datapulse-sidecar \
       /image/var/lib/datapulse-sidecar /image/tmp \
    && cp target/release/datapulse-sidecar /image/usr/bin/ \
    && ldd target/release/datapulse-sidecar | grep -o '/[^ ]*' \
       | xargs -I LIB cp --dereference --parents LIB /image \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && echo 'nonroot:x:65532:65532:nonroot:/:/sbin/nologin' >/image/etc/passwd \
    && echo 'nonroot:x:65532:' >/image/etc/group \
    && echo 'hosts: files dns' >/image/etc/nsswitch.conf \
    && chown -R 65532:65532 /image/var/lib/datapulse-sidecar \
    && chmod 1777 /image/tmp
COPY LICENSE /image/usr/share/doc/datapulse-sidecar/

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="datapulse-sidecar" \
      org.opencontainers.image.description="Gives apps DataPulse without a credential in them" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image /
USER 65532:65532
# The health listener; apps call on loopback, which no port is published for.
EXPOSE 9464
ENTRYPOINT ["/usr/bin/datapulse-sidecar"]
CMD ["run"]
