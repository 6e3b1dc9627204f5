# The image of Hallmark with a container engine: docker build --build-arg VERSION=$(git describe --tags --always) .
# Without one, and reproducibly: make image. Both make the same root filesystem; test/image holds them together.
# A tag can be moved: give the builder by the digest that you trust, --build-arg GO=golang:1.26@sha256:… The image itself is built on nothing.
ARG GO=golang:1.26
FROM --platform=$BUILDPLATFORM $GO AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS=linux
ARG TARGETARCH
ARG VERSION=dev
RUN mkdir -p /root-of-image/etc/ssl/certs \
 && install -d -m 1777 /root-of-image/tmp \
 && cp /etc/ssl/certs/ca-certificates.crt /root-of-image/etc/ssl/certs/ \
 && printf '%s\n' 'root:x:0:0:root:/:/sbin/nologin' 'nonroot:x:65532:65532:nonroot:/:/sbin/nologin' > /root-of-image/etc/passwd
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /root-of-image/hallmark ./cmd/hallmark

FROM scratch
ARG VERSION=dev
ARG REVISION=
LABEL org.opencontainers.image.title="Hallmark" \
      org.opencontainers.image.description="Admits developer workspaces only from approved, signed, pinned images" \
      org.opencontainers.image.source="https://github.com/hallmark-admission/hallmark" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /root-of-image/ /
WORKDIR /
USER 65532:65532
EXPOSE 9443 9090
ENTRYPOINT ["/hallmark"]
