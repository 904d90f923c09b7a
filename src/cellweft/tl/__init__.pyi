from cellweft.tl._attribution import (
    Attribution as Attribution,
)
from cellweft.tl._attribution import (
    attribute as attribute,
)
from cellweft.tl._clustering import (
    coexpression_modules as coexpression_modules,
)
from cellweft.tl._clustering import (
    leiden_clusters as leiden_clusters,
)
from cellweft.tl._differential_expression import differential_expression as differential_expression
from cellweft.tl._dominant_genes import (
    GeneComparison as GeneComparison,
)
from cellweft.tl._dominant_genes import (
    compare_with_expression as compare_with_expression,
)
from cellweft.tl._dominant_genes import (
    dominant_genes as dominant_genes,
)
from cellweft.tl._gene_trends import (
    Trends as Trends,
)
from cellweft.tl._gene_trends import (
    gene_trends as gene_trends,
)
from cellweft.tl._multiple_imputation import multiple_imputations as multiple_imputations
from cellweft.tl._neighborhoods import (
    hollow_structure as hollow_structure,
)
from cellweft.tl._neighborhoods import (
    neighborhood_enrichment as neighborhood_enrichment,
)
from cellweft.tl._neighborhoods import (
    radial_concentration as radial_concentration,
)
from cellweft.tl._neighborhoods import (
    region_enrichment as region_enrichment,
)
from cellweft.tl._spatial_axis import (
    Axis as Axis,
)
from cellweft.tl._spatial_axis import (
    axis_of_score as axis_of_score,
)
from cellweft.tl._spatial_axis import (
    fit_axis as fit_axis,
)
