"""The annotation schemas that CAVE's schema service registers, as JSON Schema documents.

The documents have what clients make columns and filters of: classes, fields, types, and which fields are required.
Descriptions, enumerations and display hints are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

_REGISTRY: Final = """
synapse SynapseSchema ctr_pt:point post_pt:bound pre_pt:bound size?:float
nocleft_synapse NoCleftSynapse post_pt:bound pre_pt:bound score?:float
nocenter_synapse NoCenterSynapse post_pt:bound pre_pt:bound size?:float
fly_synapse BuhmannSynapseSchema cleft_score?:float connection_score?:float post_pt:bound pre_pt:bound
fly_nt_synapse BuhmannEcksteinSynapseSchema ach?:float cleft_score?:float connection_score?:float da?:float
    gaba?:float glut?:float oct?:float post_pt:bound pre_pt:bound ser?:float valid_nt?:flag
bouton_shape BoutonShape shape:text target_id:id
presynaptic_bouton_type PresynapticBoutonType bouton_type:text target_id:id
postsynaptic_compartment PostsynapticCompartment compartment:text dendrite_class?:text on_spine?:flag target_id:id
spine_with_info SpineWithInfo n_inputs?:int pt:bound volume?:float
microns_func_coreg FunctionalCoregistration func_id:int pt:bound
microns_func_unit_coreg FunctionalUnitCoregistration pt:bound scan_idx:int session:int unit_id:int
v1dd_func_unit_coreg V1DDFunctionalUnitCoregistration column:int plane?:int pt:bound residual?:float roi:int
    score?:float volume:int
func_unit_ext_coreg FunctionalUnitCoregistrationExtended field?:int residual?:float scan_idx:int score?:float
    session:int target_id:id unit_id:int
func_properties_bcm FunctionalPropertiesBCM cc_abs:float gDSI:float gOSI:float pref_dir:float pref_ori:float
    scan_idx:int session:int target_id:id unit_id:int
simple_reference ReferenceAnnotation target_id:id
reference_tag ReferenceTagAnnotation tag:text target_id:id
cell_type_local CellTypeLocal cell_type:text classification_system:text pt:bound
cell_type_reference CellTypeReference cell_type:text classification_system:text target_id:id
cell_type_reference_user CellTypeReferenceUser cell_type:text classification_system:text target_id:id user_id:int
nucleus_detection NucleusDetection bb_end?:point bb_start?:point pt:bound volume?:float
bound_tag BoundTagAnnotation pt:bound tag:text
bound_double_tag BoundDoubleTagAnnotation pt:bound tag:text tag2:text
bound_2tag Bound2TagAnnotation pt:bound pt2:bound tag:text tag2:text
bound_tag_user BoundTagAnnotationUser pt:bound tag:text user_id:int
bound_double_tag_user BoundDoubleTagAnnotationUser pt:bound tag:text tag2:text user_id:int
bound_2tag_user Bound2TagAnnotationUser pt:bound pt2:bound tag:text tag2:text user_id:int
extended_classical_cell_type ExtendedClassicalCellType cell_type:text pt:bound
plastic_synapse PlasticSynapse ctr_pt:point plasticity:int post_pt:bound pre_pt:bound size?:float
glia_contact GliaContact glia_pt:bound object_pt:bound size?:float
contact Contact ctr_pt?:point sidea_pt:bound sideb_pt:bound size?:int
derived_spatial_point DerivedSpatialPoint
derived_tag DerivedTag pt:derived tag:text
derived_numeric_value DerivedNumeric pt:derived value?:float
proofread_status ProofreadStatus pt:bound status:text valid_id:id
compartment_proofread_status CompartmentProofreadStatus pt:bound status_axon:text status_dendrite:text valid_id:id
proofreading_boolstatus_user ProofreadingBoolStatusUser proofread:flag pt:bound user_id:int valid_id:id
fly_neuropil FlyNeuropil neuropil:text target_id:id
reference_point FlatSegmentationReferenceSinglePoint pt:bound target_id:id
representative_point RepresentativePoint pt:bound
reference_synapse_valid ValidSynapse is_valid:flag target_id:id
reference_simple_group SimpleGroup group_id:int target_id:id
reference_simple_group_indexed SimpleGroupIndexed group_id:int target_id:id
fly_cell_type FlyCellType cell_type:text hemisphere:text pt:bound
fly_cell_type_ext FlyCellTypeExt cell_type:text driver_line?:text hemisphere:text pt:bound synonym?:text
braincircuits_annotation_user BrainCircuitsBoundTagAnnotationUser pt:bound tag:text user_id:text
bound_tag_bool BoundBoolAnnotation pt:bound tag:flag
bound_tag_bool_valid BoundBoolWithValid pt:bound tag:flag valid_id:id
bound_tag_valid BoundTagWithValid pt:bound tag:text valid_id:id
pt_bool_valid SpatialPointBoolWithValid pt:point tag:flag valid_id:id
reference_integer ReferenceInteger target_id:id value:int
reference_tag_float ReferenceTagFloat tag:text target_id:id value:float
compartment_proofread_status_strategy CompartmentProofreadStatusStrategy pt:bound status_axon:flag
    status_dendrite:flag strategy_axon:text strategy_dendrite:text valid_id:id
reference_tag_with_confidence ReferenceTagWithConfidence confidence:float target_id:id
digital_twin_properties DigitalTwinPropertiesBCM DSI:float OSI:float cc_abs:float cc_max:float cc_norm:float
    gDSI:float gOSI:float pref_dir:float pref_ori:float readout_loc_x:float readout_loc_y:float scan_idx:int
    session:int target_id:id unit_id:int
cell_match CellMatch match_id:text pt:bound query_root_id:id score:float validation?:flag
cell_similarity CellSimilarity match_pt:bound match_root_id:id pt:bound query_root_id:id score:float
cell_match_reference CellMatchReference match_id:text query_root_id:id score:float target_id:id validation?:flag
"""
"""Schema, class, fields: ``name:kind``, with ``?`` where optional. Indented lines continue the one above."""

_KINDS: Final[dict[str, dict[str, Any]]] = {
    "point": {"type": "object", "$ref": "#/definitions/SpatialPoint"},
    "bound": {"type": "object", "$ref": "#/definitions/BoundSpatialPoint"},
    "derived": {"type": "object", "$ref": "#/definitions/DerivedSpatialPoint"},
    "float": {"type": "number", "format": "float"},
    "int": {"type": "number", "format": "integer"},
    "id": {"type": "integer"},
    "text": {"type": "string"},
    "flag": {"type": "boolean"},
}


def _closed(required: list[str], **types: str) -> dict[str, Any]:
    properties = {name: {"type": kind} for name, kind in types.items()}
    return {"required": required, "properties": properties, "type": "object", "additionalProperties": False}


_POINTS: Final[dict[str, dict[str, Any]]] = {
    "SpatialPoint": _closed(["position"], position="array"),
    "BoundSpatialPoint": _closed(["position"], position="array", root_id="integer", supervoxel_id="integer"),
    "DerivedSpatialPoint": _closed(
        ["dependent_chunk", "position"],
        dependent_chunk="integer",
        level="integer",
        position="array",
        root_id="integer",
        supervoxel_id="integer",
    ),
}


@cache
def documents() -> dict[str, dict[str, Any]]:
    """Every schema by name, in the order of the registry."""
    return {name: _document(cls, fields) for name, cls, fields in _entries()}


def _entries() -> Iterator[tuple[str, str, list[str]]]:
    for line in _REGISTRY.replace("\n    ", " ").strip().splitlines():
        name, cls, *fields = line.split()
        yield name, cls, fields


def _document(cls: str, fields: list[str]) -> dict[str, Any]:
    definitions: dict[str, Any] = {}
    properties, required = {}, []
    for field in [*fields, "valid?:flag"]:
        name, kind = field.split(":")
        if not name.endswith("?"):
            required.append(name)
        name, optional = name.removesuffix("?"), name.endswith("?")
        properties[name] = _property(name, kind, optional=optional)
        point = str(_KINDS[kind].get("$ref", "")).removeprefix("#/definitions/")
        if point:
            definitions[point] = _POINTS[point]
    definitions[cls] = _POINTS.get(cls) or {
        "required": required,
        "properties": dict(sorted(properties.items())),
        "type": "object",
        "additionalProperties": True,
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "definitions": definitions,
        "$ref": f"#/definitions/{cls}",
    }


def _property(name: str, kind: str, *, optional: bool) -> dict[str, Any]:
    """One field. Ids have no title; optional scalars may be null."""
    described = dict(_KINDS[kind])
    if "$ref" not in described and kind != "id":
        described["title"] = name
    if optional and "$ref" not in described:
        described["type"] = [described["type"], "null"]
    return described
