# docker build --build-arg VERSION=1.2.3 -t streamgw .
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd ./cmd
COPY internal ./internal
ARG VERSION=devel TARGETOS TARGETARCH
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /streamgw ./cmd/streamgw

# No shell, no package manager; the system's certificate authorities are there, and a user that isn't root.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /streamgw /streamgw
EXPOSE 8080 8090
ENTRYPOINT ["/streamgw"]
CMD ["serve"]
