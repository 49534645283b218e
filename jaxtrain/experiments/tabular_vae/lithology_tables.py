"""Published statistics of the ocean-drilling lithology table, as plain literals; `lithology` draws from them.

**Source:** row counts, class groups, quartiles, extremes, holes per expedition and rows per hole are those of
the real table (238,506 bins of 20 cm, 25 IODP expeditions) behind the public release
`mnky9800n/bhai-vae-paper`, read from the logs of `SerpRateAI/lilyexplorer`. Prototypes and the other
quantiles are approximate: ours, read off published figures, sampled from the released model, or common
geological knowledge.
"""

# Group -> class -> rows.
ROWS = {
  "Carbonate": {
    "nannofossil ooze": 49778, "wackestone": 14230, "packstone": 12548, "nannofossil chalk": 7894,
    "nannofossil clay": 3487, "chalk": 3410, "calcareous ooze": 2409, "foraminifera ooze": 2213,
    "grainstone": 2108, "marl": 545, "limestone": 452, "rudstone": 343, "foraminifera chalk": 292,
    "calcarenite": 253, "foraminifera clay": 173, "marlstone": 157, "floatstone": 76, "calcilutite": 62,
    "carbonate ooze": 38, "nannofossil mud": 23, "foraminifera limestone": 16, "foraminifera mud": 7,
    "foraminifera sand": 7, "boundstone": 5, "carbonate": 3, "foraminifera sandstone": 2,
  },
  "Clay/Mud": {
    "clay": 37237, "silty clay": 18048, "mudstone": 9952, "claystone": 9470, "clayey silt": 5406, "mud": 4894,
    "silty claystone": 3798, "interbedded silt and clay": 2570, "pebbly mud": 1222,
    "interbedded siltstone and mudstone": 809, "interbedded sand and mud": 582,
    "clast-poor muddy diamict": 420, "clayey siltstone": 333, "interbedded sandstone and mudstone": 321,
    "silty mud": 303, "sandy mud/mudstone to muddy sand/sandstone": 299, "clast-rich muddy diamict": 284,
    "interbedded mud/mudstone and diamict": 204, "sandy clay": 131,
    "interbedded sand/sandstone and mud/mudstone": 92, "sandy mud": 89, "clayey sand": 78,
    "clayey sandstone": 68, "sand-silt-clay": 64, "sandy mudstone": 60, "clayey mud": 52,
    "sandy claystone": 37, "silty mudstone": 33, "muddy sand/sandstone to silty mud/mudstone": 32,
    "muddy silt": 24, "radiolarian mud": 9, "pebbly mudstone": 4, "muddy sand": 3, "metaclaystone": 1,
    "muddy siltstone": 1,
  },
  "Biogenic Silica": {
    "diatom ooze": 6095, "diatomite": 789, "biosiliceous ooze": 490, "radiolarian ooze": 18, "chert": 18,
    "porcellanite": 4,
  },
  "Sand": {
    "sand": 5395, "sandstone": 2448, "clast-poor sandy diamict": 1380, "medium to coarse sandstone": 1147,
    "fine sand": 891, "clast-rich sandy diamict": 853, "fine sandstone": 466, "very fine sand": 435,
    "medium to coarse sand": 91, "medium sand": 78, "gravelly sandstone": 25, "coarse sand": 24,
    "very fine sandstone": 5, "coarse sand and gravel": 5, "coarse sandstone": 5, "pebbly sandstone": 4,
    "gravelly sand": 1,
  },
  "Mafic Igneous": {
    "gabbro": 2522, "basalt": 2401, "boninite": 596, "hyaloclastite": 256, "dolerite": 147,
    "gabbronorite": 16, "diabase": 13, "metabasite": 4,
  },
  "Silt": {
    "silty sand": 1941, "siltstone": 1614, "silt": 1199, "sandy silt": 1086, "silty sandstone": 887,
    "sandy siltstone": 219, "diatom silt": 3, "sandy silt to silty sand": 2,
  },
  "Volcaniclastic": {
    "lapilli tuff": 1131, "tuff": 855, "ash": 541, "ash/tuff": 522, "lapillistone": 379, "tephra": 302,
    "volcaniclastic rock": 164, "lapilli tephra": 155, "lapilli ash": 101, "agglomerate": 30, "fine tuff": 7,
  },
  "Conglomerate/Breccia": {
    "breccia": 1022, "conglomerate": 644, "breccia/conglomerate": 437, "gravel": 92,
    "breccia/conglomerate/gravel": 2,
  },
  "Other": {
    "volcanic rock": 250, "lava": 39, "ooze": 28, "coal": 2,
  },
  "Evaporite": {
    "dolostone": 173, "gypsum rock": 2, "anhydrite rock": 1,
  },
  "Intermediate/Felsic Igneous": {
    "diorite": 165, "dacite": 46, "andesite": 38, "felsic patch": 26, "rhyodacite": 6, "felsic vein": 3,
  },
  "Metamorphic": {
    "schist": 123, "cataclasite": 19, "granofels": 11, "metavolcanic rock": 6, "marble": 3,
  },
  "Diamict": {
    "debris flow": 66,
  },
  "Ultramafic": {
    "harzburgite": 50, "dunite": 22, "ultramafic rock": 8, "serpentinite": 1,
  },
}

# Holes per expedition: 25 expeditions, 296 holes.
HOLES = {
  "346": 29, "349": 9, "350": 7, "351": 4, "352": 6, "353": 18, "354": 14, "355": 8, "356": 17, "359": 20,
  "360": 1, "361": 34, "362": 8, "363": 29, "366": 16, "367": 4, "368": 11, "368X": 1, "369": 11, "371": 11,
  "372": 1, "374": 8, "375": 10, "376": 10, "379": 9,
}

# Rows per hole at these shares of the holes.
HOLE_ROWS_P = (0, 0.05, 0.25, 0.50, 0.75, 0.95, 1)
HOLE_ROWS = (2, 18, 144, 688, 1227, 2190, 3469)

# (mean, sd) on the standardised axes density, susceptibility, gamma radiation, brightness. No prototype of
# Diamict or of its one class, debris flow, is known: they take that of Conglomerate/Breccia.
GROUP_PROTOTYPES = {
  "Carbonate": ((0.05, -0.6, -0.35, 0.55), (0.85, 0.85, 0.85, 0.85)),
  "Clay/Mud": ((0, 0.3, 0.45, -0.45), (0.75, 0.75, 0.7, 0.75)),
  "Biogenic Silica": ((-1.25, -0.55, 0, -0.1), (0.6, 0.8, 0.6, 0.9)),
  "Sand": ((0.45, 0.6, 0.55, -0.6), (0.8, 0.85, 0.85, 0.85)),
  "Silt": ((0.25, 0.4, 0.7, -0.7), (0.85, 0.7, 0.75, 0.8)),
  "Volcaniclastic": ((-0.25, 1, -0.6, -0.3), (1.1, 0.9, 1, 0.9)),
  "Mafic Igneous": ((3.6, 1.75, -1.75, -0.25), (0.9, 0.85, 0.6, 0.6)),
  "Intermediate/Felsic Igneous": ((2.2, 1.3, -0.8, -0.1), (1.2, 0.9, 0.9, 0.7)),
  "Metamorphic": ((2.5, 0.9, -0.8, -0.2), (1.2, 1.1, 1, 0.7)),
  "Conglomerate/Breccia": ((0.7, 0.8, -0.3, -0.05), (1.2, 1, 1, 0.8)),
  "Diamict": ((0.7, 0.8, -0.3, -0.05), (1.2, 1, 1, 0.8)),
  "Evaporite": ((1.5, -1.3, -1.5, 1.2), (0.8, 0.6, 0.6, 0.6)),
  "Ultramafic": ((2.5, 2, -2, -0.4), (1, 0.7, 0.5, 0.6)),
  "Other": ((0, 0, 0, 0), (1, 1, 1, 1)),
}

# The same for single classes; sd None: that of the group.
CLASS_PROTOTYPES = {
  "nannofossil ooze": ((-0.15, -0.3, -0.35, 0.5), None),
  "clay": ((-0.1, 0.37, 0.45, -0.52), None),
  "silty clay": ((-0.2, 0.28, 0.6, -0.6), None),
  "wackestone": ((0.35, -1.15, -0.02, 0.26), (0.55, 0.65, 0.5, 0.65)),
  "packstone": ((0.22, -1.12, -0.05, 0.2), (0.6, 0.6, 0.5, 0.75)),
  "mudstone": ((0.45, -0.2, 0.1, 0.15), (0.6, 1, 0.75, 0.9)),
  "claystone": ((0.45, 0.05, 0.25, -0.15), (0.6, 0.85, 0.8, 0.9)),
  "nannofossil chalk": ((0.55, -0.15, -1.05, 1.1), (0.6, 0.85, 0.8, 0.75)),
  "diatom ooze": ((-1.42, -0.8, 0.1, -0.1), (0.5, 0.5, 0.5, 1)),
  "clayey silt": ((-0.12, 0, 0.6, -0.35), (0.75, 0.65, 0.65, 0.9)),
  "sand": ((0.45, 0.55, 0.6, -0.65), None),
  "mud": ((-0.2, 0.45, 0, 0.02), (0.8, 0.8, 0.85, 0.8)),
  "silty claystone": ((0.4, 0.32, 0.42, -0.4), (0.6, 0.7, 0.75, 0.6)),
  "nannofossil clay": ((-0.13, 0.1, -0.8, -0.1), (0.7, 1, 0.9, 0.9)),
  "chalk": ((0.7, -0.5, -0.75, 0.85), (0.6, 0.8, 0.9, 0.75)),
  "interbedded silt and clay": ((0.45, 0, 0.45, 0.5), (0.5, 0.5, 0.6, 0.7)),
  "gabbro": ((4.3, 1.6, -1.9, -0.25), (0.35, 0.9, 0.55, 0.5)),
  "basalt": ((3.3, 1.7, -1.4, 0), (1, 0.85, 0.7, 0.65)),
  "sandstone": ((0.75, 0.8, 0.15, -0.55), (0.9, 0.9, 1, 1)),
  "calcareous ooze": ((-0.1, -0.45, -0.4, 0.35), (0.7, 0.9, 0.9, 1)),
  "foraminifera ooze": ((-0.6, 0.25, -1.05, -0.3), (0.8, 1.1, 0.8, 1.1)),
  "grainstone": ((-0.15, -1.1, -0.3, 0.65), (0.7, 0.6, 0.6, 0.75)),
  "silty sand": ((0.7, 0.75, 1.2, -0.9), (0.8, 0.55, 0.7, 0.8)),
  "siltstone": ((0.5, 1, -0.4, -1), (0.7, 0.7, 0.95, 0.65)),
  "clast-poor sandy diamict": ((0.45, 0.5, 0.68, 0.2), (0.5, 0.45, 0.4, 0.3)),
  "pebbly mud": ((0.05, 1.1, -1.6, 0), (0.8, 0.8, 0.8, 0.7)),
  "silt": ((0.55, 0.6, 1.1, -0.9), (0.8, 0.45, 0.65, 0.7)),
  "medium to coarse sandstone": ((0.6, 2.1, -0.3, -1.8), (0.8, 0.7, 0.7, 0.5)),
  "lapilli tuff": ((0.1, 0.1, 0.1, 0.4), (0.8, 0.7, 0.7, 0.6)),
  "sandy silt": ((0.15, 0.36, 0.65, -0.65), (0.8, 0.65, 0.75, 0.8)),
  "diatomite": ((-1.3, -0.5, -0.7, 1.5), (0.45, 0.6, 0.4, 0.5)),
  "boninite": ((0.5, 1.2, -1.8, -0.5), (1.4, 0.6, 0.6, 0.45)),
  "biosiliceous ooze": ((-2.1, -0.3, -0.3, -0.1), (0.7, 0.6, 0.7, 0.7)),
  "marl": ((0.3, 0.2, -0.4, 1.3), (0.6, 0.6, 0.9, 0.5)),
  "debris flow": ((0.7, 0.8, -0.3, -0.05), None),
}

# Quantiles of the raw features at ANCHOR_P; extremes and quartiles are exact.
ANCHOR_P = (0, 0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.985, 0.995, 1)
ANCHORS = (
  (0.300, 0.95, 1.31, 1.42, 1.5665, 1.7134, 1.8484, 1.96, 2.03, 2.18, 2.72, 3.9477),
  (-476.533, -8, -2.6, -1, 2.245, 10.9645, 43.693, 135, 430, 1150, 1700, 6770.934),
  (-0.437, 0.6, 2.1, 4.8, 13.366, 24.853, 40.104, 57, 66.4, 77, 86, 292.544),
  (4.335, 17, 24.7, 29, 37.808, 56.932, 96.780, 147, 174, 199, 214, 253.480),
  (3.5175, 16.2, 23.4, 27.9, 36.405, 55.022, 94.305, 144, 171, 195, 210, 247.733),
  (2.885, 12.8, 20.8, 25.1, 33.333, 48.170, 83.324, 128, 155, 182, 198, 239.040),
)
