# A node with NVIDIA GPUs: docker build -t dit . && docker run --gpus all -v $PWD/runs:/dit/runs dit study experiment=digits
FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends g++ git make && rm -rf /var/lib/apt/lists/*
WORKDIR /dit
COPY pyproject.toml constraints.txt README.md LICENSE Makefile ./
COPY dit dit
COPY conf conf
COPY hydra_plugins hydra_plugins
COPY experiments experiments
RUN pip install --no-cache-dir -c constraints.txt -e .
ENTRYPOINT ["dit"]
CMD ["--help"]
