# SPDX-License-Identifier: Apache-2.0
"""A Flower app with the work of federation_peer.py: a small Llama, FedAvg of all weights, plain SGD at the sites."""
import json
import time

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from transformers import LlamaForCausalLM

client = ClientApp()
server = ServerApp()


def weights_of(model):
    """The tied head is the embedding: it travels once."""
    return {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}


@client.train()
def train(message: Message, context: Context):
    torch.set_num_threads(1)
    settings = context.run_config
    model = LlamaForCausalLM.from_pretrained(settings["model"], dtype=torch.float32)
    model.load_state_dict(message.content["arrays"].to_torch_state_dict(), strict=False)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=settings["lr"])
    rows, length = settings["rows"], settings["length"]
    site = context.node_config["partition-id"]
    for step in range(settings["steps"]):
        ids = torch.arange(rows * length).mul(7919).add(13 + step + 100 * site).remainder(511).view(rows, length)
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    content = RecordDict({"arrays": ArrayRecord(weights_of(model)), "metrics": MetricRecord({"num-examples": rows * settings["steps"]})})
    return Message(content=content, reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    settings = context.run_config
    model = LlamaForCausalLM.from_pretrained(settings["model"], dtype=torch.float32)
    while len(list(grid.get_node_ids())) < settings["sites"]:
        time.sleep(0.1)
    times = []
    strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=settings["sites"], min_evaluate_nodes=0,
                      min_available_nodes=settings["sites"])
    strategy.start(grid=grid, initial_arrays=ArrayRecord(weights_of(model)), num_rounds=settings["rounds"],
                   evaluate_fn=lambda number, arrays: times.append(time.time()))
    with open(settings["times"], "w") as file:
        json.dump(times, file)
