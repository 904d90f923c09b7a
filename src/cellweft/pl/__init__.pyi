from cellweft.pl._clusters import (
    enrichment as enrichment,
)
from cellweft.pl._clusters import (
    modules as modules,
)
from cellweft.pl._clusters import (
    umap as umap,
)
from cellweft.pl._colors import (
    label_colors as label_colors,
)
from cellweft.pl._colors import (
    palette as palette,
)
from cellweft.pl._genes import (
    attribution as attribution,
)
from cellweft.pl._genes import (
    trends as trends,
)
from cellweft.pl._placement import (
    composition as composition,
)
from cellweft.pl._placement import (
    placed as placed,
)
from cellweft.pl._scores import (
    methods as methods,
)
from cellweft.pl._scores import (
    reliability as reliability,
)
from cellweft.pl._spatial import (
    gene as gene,
)
from cellweft.pl._spatial import (
    spatial as spatial,
)
from cellweft.pl._spatial import (
    uncertainty as uncertainty,
)
from cellweft.pl._training import (
    calibration as calibration,
)
from cellweft.pl._training import (
    history as history,
)
