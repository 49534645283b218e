"""Suites of test families, by the names that `config.eval.suite` takes; each family is a line of `named.py`.

Every family writes out its graphs, mechanisms, noise, shares of noise and corruptions with all their parameters, so
that runs with different training tasks are judged by the same suite, and a default that changes shifts none. Numbers of
rows and what the config says of interventions are the run's own, where a family does not say otherwise. All families of
the suites of the first release have 20 variables, and graphs of edge probability 0.2 unless their name says otherwise.
Mechanisms are the repaired ones (`mechanisms.py`); those of `paper` are the paper's.

`causal_benchmark` crosses six graph families with three mechanisms of training and four others, and changes noise,
numbers of variables and rows, density, and the table; `table` changes only what stands between the model and the table.
"""

import itertools

ER = "er:edge_prob=0.2"
LINEAR, MLP = "linear", "mlp:hidden_dim=32:depth=2:noise_input=0"
GP = ("gp:rff_dim=256:num_kernels=1:length_low=0.5:length_high=2.0:variance_low=1.0:variance_high=1.0:noise_input=0:"
      "shared_length=0")
WIDE_GP = ("gp:rff_dim=512:num_kernels=4:length_low=0.1:length_high=10.0:variance_low=1.0:variance_high=1.0:"
           "noise_input=0:shared_length=0")
OWN = {"linear": LINEAR, "mlp": MLP, "gp": WIDE_GP}
OTHER = {"periodic": "periodic:frequency=2.0", "square": "square", "logistic": "logistic",
         "pnl_tanh": "pnl:nonlinearity=tanh"}
DENSITIES = {"er20": "er:edge_prob=0.0526", "er40": "er:edge_prob=0.1053", "er60": "er:edge_prob=0.1579"}
OWN_GRAPHS = DENSITIES | {f"sf{m}": f"sf:m={m}" for m in (1, 2, 3)}
STRONG, WEAK = "sbm:n_blocks=4:p_intra=0.6:p_inter=0.01", "sbm:n_blocks=4:p_intra=0.3:p_inter=0.1"
OTHER_GRAPHS = {"sbm": STRONG, "ws": "ws:k=4:p=0.3", "grg": "grg:radius=0.3:dim=2"}
MATCHED = {"sbm": 0.1342, "ws": 0.2105, "grg": 0.2147}  # edge probability of er with as many edges at 20 variables
REST = {"noises": "gaussian:heteroscedastic=0", "noise_share": "0.1:0.9", "mixture": "node", "noise_mixture": "task",
        "corruptions": "none"}
TABLES = {"measurement": "measurement:share=0.2", "rounded": "rounded:step=0.5", "ordinal": "ordinal:levels=4",
          "missing": "missing:share=0.2", "hidden": "hidden:num=2:prob=0.3",
          "lagged": "lagged:lag=1:persistence=0.8 num_rows_int=0"}


def family(name: str, graphs: str, mechanisms: str, more: str = "", num_nodes: int = 20) -> str:
  """The line of a family; what `more` does not say is as in `REST`."""
  said = {word.partition("=")[0] for word in more.split()}
  rest = " ".join(f"{field}={value}" for field, value in REST.items() if field not in said)
  return " ".join(filter(None, [f"{name} graphs={graphs} mechanisms={mechanisms} num_nodes={num_nodes}", more, rest]))


def functional(*names: str) -> tuple[str, ...]:
  """Families of mechanisms that training has not."""
  return tuple(family(f"ood_{name}", ER, OTHER[name]) for name in names)


SQUARE_PERIODIC, CHAOS = functional("square", "periodic"), (family("ood_logistic_map", ER, OTHER["logistic"]),)
PNL = tuple(family(f"ood_pnl_{name}", ER, f"pnl:nonlinearity={name}") for name in ("cube", "sigmoid", "tanh"))
SBM = (family("ood_sbm_strong", STRONG, LINEAR), family("ood_sbm_weak", WEAK, LINEAR))
REF_LINEAR, REF_GP = family("ref_linear", ER, LINEAR), family("ref_gp", ER, GP)


def crossed(prefix: str, graphs: dict[str, str], mechanisms: dict[str, str]) -> list[str]:
  """All combinations of graphs and mechanisms."""
  return [family(f"{prefix}_{graph}_{mechanism}", words, made)
          for (graph, words), (mechanism, made) in itertools.product(graphs.items(), mechanisms.items())]


def table_families() -> tuple[str, ...]:
  """What stands between the model and the table, and categories that children see; else as `ref_linear`."""
  read = [family(f"ood_table_{name}", ER, LINEAR, f"corruptions={words}") for name, words in TABLES.items()]
  return (*read, family("ood_table_discrete", ER, "discrete:levels=3"))


def sizes() -> list[str]:
  """Other numbers of variables and of rows, of Erdos-Renyi graphs of 40 edges at 20 variables."""
  er40 = DENSITIES["er40"]
  nodes = [family(f"ood_nodes_{d}_{name}", er40, made, num_nodes=d)
           for d in (10, 15, 25, 30, 35, 40, 50, 60) for name, made in OWN.items() if name != "gp"]
  rows = [family(f"ood_samples_{n}_{name}", er40, made, f"num_rows={n}")
          for n in (50, 100, 150, 200, 300, 750, 1000, 1500, 2000) for name, made in OWN.items() if name != "gp"]
  return nodes + rows


def benchmark() -> tuple[str, ...]:
  """The newer benchmark."""
  noises = [family(f"ood_noise_{noise}_{name}", DENSITIES["er40"], made, f"noises={noise}:heteroscedastic=0")
            for noise in ("laplace", "uniform") for name, made in OWN.items()]
  mixed = [family("ood_mixed_functions", DENSITIES["er40"], "periodic:frequency=2.0+square+logistic"),
           family("ood_mixed_all", DENSITIES["er40"], f"{LINEAR}+{MLP}+{WIDE_GP}+periodic:frequency=2.0+square"),
           family("ood_mixed_graphs", f"{STRONG}+ws:k=4:p=0.3", f"{LINEAR}+square")]
  control = [family(f"ctrl_{name}_{own}", f"er:edge_prob={p}", made)
             for name, p in MATCHED.items() for own, made in OWN.items()]
  stress = [family(f"stress_{name}", words, made, f"num_rows={n} noises=laplace:heteroscedastic=0", d)
            for name, words, made, d, n in (
                ("few_rows", STRONG, "square", 20, 50), ("large", STRONG, "periodic:frequency=2.0", 60, 50),
                ("large_linear", "ws:k=4:p=0.3", LINEAR, 60, 50), ("dense", "er:edge_prob=0.4", "square", 40, 100),
                ("mixed", STRONG, f"{WIDE_GP}+square+periodic:frequency=2.0", 40, 100))]
  return (*crossed("id", OWN_GRAPHS, OWN), *crossed("ood_mech", OWN_GRAPHS, OTHER),
          *crossed("ood_graph", OTHER_GRAPHS, OWN), *crossed("ood_both", OTHER_GRAPHS, OTHER), *noises, *sizes(),
          *mixed, *control, *stress, *table_families())


def paper() -> tuple[str, ...]:
  """The nine cells of the table of Dhir et al. 2024: exact numbers of edges, the paper's mechanisms, 1,000 rows."""
  return tuple(family(f"paper_{name}_er{edges}", f"er:num_edges={edges}", made, "num_rows=1000 num_rows_int=0")
               for name, made in (("linear", "bcnp_linear:weight_scale=10.0:noise_concentration=2.5:noise_scale=2.5"),
                                  ("mlp", "bcnp_mlp:hidden_dim=32:depth=2"), ("gp", "bcnp_gp:noise_rate=10.0"))
               for edges in (20, 40, 60))


SUITES = {
    "": tuple,
    "competence": lambda: (family("id_test", ER, LINEAR),),
    "full_audit": lambda: (*SQUARE_PERIODIC, *CHAOS, *PNL, *SBM, REF_LINEAR, REF_GP),
    "functional": lambda: (*SQUARE_PERIODIC, REF_LINEAR),
    "structural": lambda: (*SBM, family("ref_er", ER, LINEAR)),
    "pnl": lambda: PNL,
    "chaos": lambda: (*CHAOS, REF_GP),
    "table": table_families,
    "causal_benchmark": benchmark,
    "paper": paper,
}


def lines(suite: str) -> tuple[str, ...]:
  """The families of a suite, a line each."""
  return SUITES[suite]()
