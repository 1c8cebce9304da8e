# Makes any image with bash and Python >= 3.8 into a sandbox image: the runner, uid 1000, /workspace.
# The exec form needs no shell of the image. prepare.py exits with words that say what the image lacks.
ARG BASE
FROM ${BASE}
USER 0:0
COPY skiff /opt/skiff
RUN ["python3", "-I", "-S", "/opt/skiff/prepare.py"]
USER 1000:1000
WORKDIR /workspace
ENTRYPOINT []
CMD []
