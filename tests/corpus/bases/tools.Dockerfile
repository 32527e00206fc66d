# What stands in for golang, rust, node, python, maven, gcc and nginx images: the distribution's packages where they
# are small, `toolchain` where the real one would be hundreds of megabytes.
FROM debian:bookworm
RUN apt-get update -q && apt-get install -qy --no-install-recommends \
        gcc g++ libc6-dev make python3-venv python3-pip nodejs nginx-light openssl curl git openssh-client jq \
    && rm -rf /var/lib/apt/lists/* && ln -sf python3 /usr/bin/python
COPY --chmod=755 toolchain /usr/local/bin/
RUN cd /usr/local/bin && for name in go cargo mvn npm; do ln -s toolchain $name; done \
    && useradd --create-home --uid 1000 node && mkdir -p /usr/share/nginx/html
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_BREAK_SYSTEM_PACKAGES=1
